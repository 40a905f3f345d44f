/* Configuration files: what is read from them, and what is said about a malformed one. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shared/conf.h"

#define L10  "1234567890"
#define L100 L10 L10 L10 L10 L10 L10 L10 L10 L10 L10

enum kind {
	NODES,
	ROUTES,
	DEVICES,
};

static char err[512];

/* Parses a copy that is exactly len bytes long, so that a sanitizer sees a byte too far. */
static int parse(enum kind kind, const char *text, size_t len)
{
	struct wvm_topology t;
	struct wvm_routes r;
	struct wvm_devices d;
	char *tight = malloc(len ? len : 1);
	int rc = -1;

	ck_assert_ptr_nonnull(tight);
	memcpy(tight, text, len);
	memset(err, 'x', sizeof(err));
	switch (kind) {
	case NODES:
		rc = wvm_topology_parse(&t, "t.conf", tight, len, err, sizeof(err));
		wvm_topology_free(&t);
		break;
	case ROUTES:
		rc = wvm_routes_parse(&r, "r.conf", tight, len, err, sizeof(err));
		wvm_routes_free(&r);
		break;
	case DEVICES:
		rc = wvm_devices_parse(&d, "d.conf", tight, len, err, sizeof(err));
		wvm_devices_free(&d);
		break;
	}
	free(tight);
	return rc;
}

#define N0  "NODE 0 10.0.0.1 9000 4 16\n"
#define N1  "NODE 1 10.0.0.2 9000 4 16\n"
#define N2  "NODE 2 10.0.0.3 9000 4 16\n"
#define DEV "DEVICE 01:00.0 7\n"

static const struct {
	enum kind kind;
	const char *text;
	const char *error;
} malformed[] = {
	{NODES, "", "t.conf: there is no NODE line"},
	{NODES, "\n  \n# NODE 0 10.0.0.1 9000 4 16\n\n", "t.conf: there is no NODE line"},
	{NODES, "node 0 10.0.0.1 9000 4 16\n", "t.conf:1: 'node' is neither NODE, PLACE nor SPARE"},
	{NODES, "\n# x\n\nROUTE 0 0 10.0.0.1 9000\n",
	 "t.conf:4: 'ROUTE' is neither NODE, PLACE nor SPARE"},
	{NODES, "NODE", "t.conf:1: field phys_id is missing after 'NODE'"},
	{NODES, "NODE 0", "t.conf:1: field ip is missing after '0'"},
	{NODES, "NODE 0 10.0.0.1\n", "t.conf:1: field port is missing after '10.0.0.1'"},
	{NODES, "NODE 0 10.0.0.1 9000\n", "t.conf:1: field cores is missing after '9000'"},
	{NODES, "NODE 0 10.0.0.1 9000 4\n", "t.conf:1: field ram_gb is missing after '4'"},
	{NODES, "NODE 0 10.0.0.1 9000 4 # 16\n", "t.conf:1: field ram_gb is missing after '4'"},
	{NODES, "NODE 0 10.0.0.1 9000 4 16 x\n", "t.conf:1: ctrl_port 'x' is not a decimal number"},
	{NODES, "NODE 0 10.0.0.1 9000 4 16 0\n",
	 "t.conf:1: ctrl_port '0' is not in the range 1 to 65535"},
	{NODES, "NODE 0 10.0.0.1 9000 4 16 65536\n",
	 "t.conf:1: ctrl_port '65536' is not in the range 1 to 65535"},
	{NODES, "NODE 0 10.0.0.1 9000 4 16 9000\n",
	 "t.conf:1: ctrl_port '9000' is the port of the node's messages"},
	{NODES, "NODE 0 127.0.0.1 8000 4 16 9001\n",
	 "t.conf:1: ctrl_port '9001': a node that is reached by a gateway (port 8000) has none here"},
	{NODES, "NODE 0 10.0.0.1 9000 4 16 9001 x\n",
	 "t.conf:1: unexpected field 'x' after ctrl_port"},
	{NODES, "NODE 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7\n",
	 "t.conf:1: too many fields, beginning with '6'"},
	{NODES, "NODE zero 10.0.0.1 9000 4 16\n",
	 "t.conf:1: phys_id 'zero' is not a decimal number"},
	{NODES, "NODE -1 10.0.0.1 9000 4 16\n", "t.conf:1: phys_id '-1' is not a decimal number"},
	{NODES, "NODE +1 10.0.0.1 9000 4 16\n", "t.conf:1: phys_id '+1' is not a decimal number"},
	{NODES, "NODE 0x1 10.0.0.1 9000 4 16\n", "t.conf:1: phys_id '0x1' is not a decimal number"},
	{NODES, "NODE 1.0 10.0.0.1 9000 4 16\n", "t.conf:1: phys_id '1.0' is not a decimal number"},
	{NODES, "NODE 1048576 10.0.0.1 9000 4 16\n",
	 "t.conf:1: phys_id '1048576' is not in the range 0 to 1048575"},
	{NODES, "NODE 4294967296 10.0.0.1 9000 4 16\n",
	 "t.conf:1: phys_id '4294967296' is not in the range 0 to 1048575"},
	{NODES, "NODE 18446744073709551616 10.0.0.1 9000 4 16\n",
	 "t.conf:1: phys_id '18446744073709551616' is not in the range 0 to 1048575"},
	{NODES, "NODE 0 host 9000 4 16\n", "t.conf:1: ip 'host' is not an IPv4 address"},
	{NODES, "NODE 0 10.0.0 9000 4 16\n", "t.conf:1: ip '10.0.0' is not an IPv4 address"},
	{NODES, "NODE 0 10.0.0.256 9000 4 16\n",
	 "t.conf:1: ip '10.0.0.256' is not an IPv4 address"},
	{NODES, "NODE 0 10.0.0.01 9000 4 16\n", "t.conf:1: ip '10.0.0.01' is not an IPv4 address"},
	{NODES, "NODE 0 fe80::1 9000 4 16\n",
	 "t.conf:1: ip 'fe80::1' is not an IPv4 address (IPv6 is not supported)"},
	{NODES, "NODE 0 10.0.0.1:9000 4 16\n", "t.conf:1: field ram_gb is missing after '16'"},
	{NODES, "NODE 0 0.0.0.0 9000 4 16\n",
	 "t.conf:1: ip '0.0.0.0' is not the address of a host"},
	{NODES, "NODE 0 239.1.2.3 9000 4 16\n",
	 "t.conf:1: ip '239.1.2.3' is not the address of a host"},
	{NODES, "NODE 0 255.255.255.255 9000 4 16\n",
	 "t.conf:1: ip '255.255.255.255' is not the address of a host"},
	{NODES, "NODE 0 10.0.0.1 0 4 16\n", "t.conf:1: port '0' is not in the range 1 to 65535"},
	{NODES, "NODE 0 10.0.0.1 70000 4 16\n",
	 "t.conf:1: port '70000' is not in the range 1 to 65535"},
	{NODES, "NODE 0 10.0.0.1 90o0 4 16\n", "t.conf:1: port '90o0' is not a decimal number"},
	{NODES, "NODE 0 10.0.0.1 9000 65536 16\n",
	 "t.conf:1: cores '65536' is not in the range 0 to 65535"},
	{NODES, "NODE 0 10.0.0.1 9000 4 0\n",
	 "t.conf:1: ram_gb '0' is not in the range 1 to 4194304"},
	{NODES, "NODE 0 10.0.0.1 9000 4 16G\n", "t.conf:1: ram_gb '16G' is not a decimal number"},
	{NODES, "NODE 0 10.0.0.1 9000 4 4194305\n",
	 "t.conf:1: ram_gb '4194305' is not in the range 1 to 4194304"},
	{NODES, "NODE 0 10.0.0.1 9000 4 4194304\nNODE 1 10.0.0.2 9000 4 1\n",
	 "t.conf:2: ram_gb '1' takes the cluster to 1048577 vnodes, above 1048576"},
	{NODES, "NODE 3 10.0.0.1 9000 4 16\nNODE 1 10.0.0.2 9000 4 16\nNODE 3 10.0.0.3 9000 4 16\n",
	 "t.conf:3: phys_id '3' is that of line 1 already"},
	{NODES, "NODE 0 10.0.0.1 9000 4 16\n\nNODE 1 10.0.0.1 9000 4 16\n",
	 "t.conf:3: ip and port '10.0.0.1 9000' are those of line 1 already (only the sidecar "
	 "127.0.0.1 8000 may stand in several lines)"},
	{NODES, "NODE 0 127.0.0.1 9000 4 16\nNODE 1 127.0.0.1 9000 4 16\n",
	 "t.conf:2: ip and port '127.0.0.1 9000' are those of line 1 already (only the sidecar "
	 "127.0.0.1 8000 may stand in several lines)"},
	{NODES, "NODE 0 10.0.0.1 8000 4 16\nNODE 1 10.0.0.1 8000 4 16\n",
	 "t.conf:2: ip and port '10.0.0.1 8000' are those of line 1 already (only the sidecar "
	 "127.0.0.1 8000 may stand in several lines)"},
	{NODES, "NODE 0 10.0.0.1 9000 4 16 #" L100 L100 L10 L10 "123456789\n",
	 "t.conf:1: line is longer than 255 characters"},
	{NODES, "NODE 0 10.0.0.1 9000 4 16\nNODE 1 10.0.0.2\v9000 4 16\n",
	 "t.conf:2: character 16 (0x0b) is not text"},
	{NODES, "# \x7f", "t.conf:1: character 3 (0x7f) is not text"},
	{NODES, "PLACE 0 0 2 0\n", "t.conf: there is no NODE line"},
	{NODES, N0 "place 0 0 2 0\n", "t.conf:2: 'place' is neither NODE, PLACE nor SPARE"},
	{NODES, N0 "PLACE\n", "t.conf:2: field vm_id is missing after 'PLACE'"},
	{NODES, N0 "PLACE 0 0 2\n", "t.conf:2: field phys_id is missing after '2'"},
	{NODES, N0 "PLACE 0 0 2 0 1\n", "t.conf:2: unexpected field '1' after phys_id"},
	{NODES, N0 "PLACE 65536 0 2 0\n", "t.conf:2: vm_id '65536' is not in the range 0 to 65535"},
	{NODES, N0 "PLACE 0 -2 2 0\n", "t.conf:2: first_mib '-2' is not a decimal number"},
	{NODES, N0 "PLACE 0 1G 2 0\n", "t.conf:2: first_mib '1G' is not a decimal number"},
	{NODES, N0 "PLACE 0 1023 2 0\n",
	 "t.conf:2: first_mib '1023' is not a multiple of 2: memory is placed in units of 2 MiB"},
	{NODES, N0 "PLACE 0 4294967296 2 0\n",
	 "t.conf:2: first_mib '4294967296' is not in the range 0 to 4294967294"},
	{NODES, N0 "PLACE 0 0 0 0\n", "t.conf:2: mib '0' is not in the range 2 to 4294967296"},
	{NODES, N0 "PLACE 0 0 7 0\n",
	 "t.conf:2: mib '7' is not a multiple of 2: memory is placed in units of 2 MiB"},
	{NODES, N0 "PLACE 0 2 4294967296 0\n",
	 "t.conf:2: mib '4294967296' goes beyond what a VM can have, 4294967296 MiB"},
	{NODES, N0 "PLACE 0 0 2 1048576\n",
	 "t.conf:2: phys_id '1048576' is not in the range 0 to 1048575"},
	{NODES, "PLACE 0 0 2 0\nPLACE 0 2 2 1\n" N0,
	 "t.conf:2: phys_id '1' is that of no NODE line: correct it, or take this line out"},
	{NODES, N0 "PLACE 3 0 1024 0\nPLACE 3 1022 2 0\n",
	 "t.conf:3: first_mib '1022': MiB 1022 of VM 3 is placed by line 2 already"},
	{NODES, N0 "PLACE 3 1022 2 0\nPLACE 3 0 1024 0\n",
	 "t.conf:3: first_mib '0': MiB 1022 of VM 3 is placed by line 2 already"},
	{NODES, N0 "PLACE 3 4 2 0\n\nPLACE 3 4 2 0\n",
	 "t.conf:4: first_mib '4': MiB 4 of VM 3 is placed by line 2 already"},

	{NODES, N0 "SPARE\n", "t.conf:2: field phys_id is missing after 'SPARE'"},
	{NODES, N0 "SPARE 1 2\n", "t.conf:2: unexpected field '2' after phys_id"},
	{NODES, N0 "SPARE one\n", "t.conf:2: phys_id 'one' is not a decimal number"},
	{NODES, N0 "SPARE 1048576\n",
	 "t.conf:2: phys_id '1048576' is not in the range 0 to 1048575"},
	{NODES, "SPARE 1\n", "t.conf: there is no NODE line"},
	{NODES, "SPARE 1\n" N0 N1 "SPARE 7\n",
	 "t.conf:4: phys_id '7' is that of no NODE line: correct it, or take this line out"},
	{NODES, N0 "SPARE 1\n" N1 "SPARE 2\n" N2 "SPARE 1\n",
	 "t.conf:6: phys_id '1' is spare by line 2 already: take one of the two out"},
	{NODES, N0 "SPARE 0\n",
	 "t.conf:2: phys_id '0' is that of the last node: all are spare, and none homes memory; "
	 "take the SPARE lines out of those that begin"},
	{NODES, "SPARE 1\n" N0 "SPARE 0\n" N1,
	 "t.conf:3: phys_id '0' is that of the last node: all are spare, and none homes memory; "
	 "take the SPARE lines out of those that begin"},
	{NODES, "PLACE 0 0 2 0\nPLACE 0 2 2 1\n" N0 N1 "SPARE 1\n",
	 "t.conf:2: phys_id '1' is spare by line 5, and homes nothing at first: place this range on "
	 "another node, or take the SPARE line out"},

	{ROUTES, "NODE 0 10.0.0.1 9000 4 16\n", "r.conf:1: 'NODE' is not ROUTE"},
	{ROUTES, "ROUTE\n", "r.conf:1: field first_vnode is missing after 'ROUTE'"},
	{ROUTES, "ROUTE 0 4 10.0.0.1\n", "r.conf:1: field port is missing after '10.0.0.1'"},
	{ROUTES, "ROUTE 0 4 10.0.0.1 8000 1\n", "r.conf:1: unexpected field '1' after port"},
	{ROUTES, "ROUTE 1048576 1 10.0.0.1 8000\n",
	 "r.conf:1: first_vnode '1048576' is not in the range 0 to 1048575"},
	{ROUTES, "ROUTE 0 1048577 10.0.0.1 8000\n",
	 "r.conf:1: count '1048577' is not in the range 0 to 1048576"},
	{ROUTES, "ROUTE 1048575 2 10.0.0.1 8000\n",
	 "r.conf:1: count '2' goes beyond the last vnode, 1048575"},
	{ROUTES, "ROUTE 4 0 10.0.0.1 8000\n",
	 "r.conf:1: count '0' is for the default route, whose first_vnode is 0"},
	{ROUTES, "ROUTE 0 4 gateway 8000\n", "r.conf:1: ip 'gateway' is not an IPv4 address"},
	{ROUTES, "ROUTE 0 4 10.0.0.1 65536\n",
	 "r.conf:1: port '65536' is not in the range 1 to 65535"},
	{ROUTES, "ROUTE 0 0 10.0.0.1 8000\nROUTE 0 0 10.0.0.1 8000\n",
	 "r.conf:2: count '0': the default route is in line 1 already"},
	{ROUTES, "ROUTE 0 4 10.0.0.1 8000\nROUTE 3 1 10.0.0.2 8000\n",
	 "r.conf:2: first_vnode '3': vnode 3 is in the route of line 1 already"},
	{ROUTES, "ROUTE 3 1 10.0.0.1 8000\nROUTE 9 1 10.0.0.1 8000\nROUTE 0 4 10.0.0.2 8000\n",
	 "r.conf:3: first_vnode '0': vnode 3 is in the route of line 1 already"},
	{ROUTES, "ROUTE 8 2 10.0.0.1 8000\nROUTE 8 2 10.0.0.1 8000\n",
	 "r.conf:2: first_vnode '8': vnode 8 is in the route of line 1 already"},
	{ROUTES, "ROUTE 0 1048576 10.0.0.1 8000\nROUTE 1048575 1 10.0.0.1 8000\n",
	 "r.conf:2: first_vnode '1048575': vnode 1048575 is in the route of line 1 already"},

	{DEVICES, "", "d.conf: there is no DEVICE line"},
	{DEVICES, "GPU\n", "d.conf:1: 'GPU' is not DEVICE, BAR<n> or END"},
	{DEVICES, "BAR0 0x1000 4096\n", "d.conf:1: 'BAR0' outside of a DEVICE"},
	{DEVICES, "END\n", "d.conf:1: 'END' outside of a DEVICE"},
	{DEVICES, "DEVICE\n", "d.conf:1: field pci is missing after 'DEVICE'"},
	{DEVICES, "DEVICE 01:00.0\n", "d.conf:1: field vfio group is missing after '01:00.0'"},
	{DEVICES, "DEVICE 01:00.0 7 8\n", "d.conf:1: unexpected field '8' after vfio group"},
	{DEVICES, "DEVICE 01:00 7\n", "d.conf:1: pci '01:00' is not of the form 0000:01:00.0"},
	{DEVICES, "DEVICE 0000:01:00.00 7\n",
	 "d.conf:1: pci '0000:01:00.00' is not of the form 0000:01:00.0"},
	{DEVICES, "DEVICE 01:0g.0 7\n", "d.conf:1: pci '01:0g.0' is not of the form 0000:01:00.0"},
	{DEVICES, "DEVICE 01:20.0 7\n",
	 "d.conf:1: pci '01:20.0' has a slot above 1f or a function above 7"},
	{DEVICES, "DEVICE 01:00.8 7\n",
	 "d.conf:1: pci '01:00.8' has a slot above 1f or a function above 7"},
	{DEVICES, "DEVICE 01:00.0 noiommu-7\n",
	 "d.conf:1: vfio group 'noiommu-7' is not a decimal number"},
	{DEVICES, "DEVICE 01:00.0 /dev/vfio/\n", "d.conf:1: vfio group '' is not a decimal number"},
	{DEVICES, DEV DEV, "d.conf:2: 'DEVICE' before the END of the one in line 1"},
	{DEVICES, DEV "END\n", "d.conf:2: 'END' before any BAR of the DEVICE in line 1"},
	{DEVICES, DEV "BAR0 0x1000 4096\n", "d.conf:1: 'DEVICE' without END"},
	{DEVICES, DEV "BAR0 0x1000 4096\nEND now\n", "d.conf:3: unexpected field 'now' after END"},
	{DEVICES, DEV "BAR 0x1000 4096\n", "d.conf:2: 'BAR' is not BAR0 to BAR5"},
	{DEVICES, DEV "BAR6 0x1000 4096\n", "d.conf:2: 'BAR6' is not BAR0 to BAR5"},
	{DEVICES, DEV "BAR00 0x1000 4096\n", "d.conf:2: 'BAR00' is not BAR0 to BAR5"},
	{DEVICES, DEV "BARx 0x1000 4096\n", "d.conf:2: 'BARx' is not BAR0 to BAR5"},
	{DEVICES, DEV "BAR0\n", "d.conf:2: field gpa is missing after 'BAR0'"},
	{DEVICES, DEV "BAR0 0x1000\n", "d.conf:2: field size is missing after '0x1000'"},
	{DEVICES, DEV "BAR0 1000h 4096\n",
	 "d.conf:2: gpa '1000h' is neither a decimal nor a 0x… number"},
	{DEVICES, DEV "BAR0 0x 4096\n", "d.conf:2: gpa '0x' is neither a decimal nor a 0x… number"},
	{DEVICES, DEV "BAR0 0x10000000000000 4096\n",
	 "d.conf:2: gpa '0x10000000000000' is not in the range 0 to 4503599627370495"},
	{DEVICES, DEV "BAR0 0x1000 0\n",
	 "d.conf:2: size '0' is not in the range 16 to 1099511627776"},
	{DEVICES, DEV "BAR0 0x1000 4000\n", "d.conf:2: size '4000' is not a power of two"},
	{DEVICES, DEV "BAR0 0x1800 4096\n", "d.conf:2: gpa '0x1800' is not a multiple of the size"},
	{DEVICES, DEV "BAR0 0x1000 4096\nBAR0 0x2000 4096\n",
	 "d.conf:3: 'BAR0' is in line 2 already"},
	{DEVICES, DEV "BAR0 0x1000 4096\nBAR2 0 8192\n",
	 "d.conf:3: gpa '0' overlaps the BAR of line 2"},
	{DEVICES, DEV "BAR0 0 8192\nEND\nDEVICE 02:00.0 8\nBAR5 0x1ff0 16\nEND\n",
	 "d.conf:5: gpa '0x1ff0' overlaps the BAR of line 2"},
	{DEVICES, DEV "BAR0 0 4096\nEND\nDEVICE 0000:01:00.0 8\n",
	 "d.conf:4: pci '0000:01:00.0' is that of line 1 already"},
};
#define MALFORMED (sizeof(malformed) / sizeof(malformed[0]))

START_TEST(a_malformed_file_is_told_by_file_line_and_field)
{
	int rc = parse(malformed[_i].kind, malformed[_i].text, strlen(malformed[_i].text));

	ck_assert_str_eq(err, malformed[_i].error);
	ck_assert_int_eq(rc, -EINVAL);
}
END_TEST

START_TEST(a_line_of_255_characters_is_read)
{
	char text[256] = "NODE 0 10.0.0.1 9000 4 16 #";

	memset(text + strlen(text), 'x', 255 - strlen(text));
	ck_assert_int_eq(parse(NODES, text, 255), 0);
	text[255] = '\n';
	ck_assert_int_eq(parse(NODES, text, 256), 0);
	text[255] = 'x';
	ck_assert_int_eq(parse(NODES, text, 256), -EINVAL);
}
END_TEST

START_TEST(a_nul_byte_is_not_text)
{
	static const char text[] = "NODE 0 10.0.0.1 9000 4 16\0\n";

	ck_assert_int_eq(parse(NODES, text, sizeof(text) - 1), -EINVAL);
	ck_assert_str_eq(err, "t.conf:1: character 26 (0x00) is not text");
}
END_TEST

START_TEST(an_error_is_cut_to_its_buffer)
{
	struct wvm_topology t;
	char small[12];

	memset(small, 'x', sizeof(small));
	ck_assert_int_eq(wvm_topology_parse(&t, "t.conf", "NOD", 3, small, 10), -EINVAL);
	ck_assert_str_eq(small, "t.conf:1:");
	ck_assert_int_eq(small[10], 'x');
	ck_assert_int_eq(wvm_topology_parse(&t, "t.conf", "NOD", 3, NULL, 0), -EINVAL);
	ck_assert_ptr_null(t.nodes);
}
END_TEST

static struct wvm_topology topology(const char *text)
{
	struct wvm_topology t;

	ck_assert_msg(!wvm_topology_parse(&t, "t", text, strlen(text), err, sizeof(err)), "%s",
		      err);
	ck_assert_str_eq(err, "");
	return t;
}

START_TEST(vnodes_are_dealt_in_the_order_of_the_file)
{
	static const struct wvm_conf_node want[] = {
		{7, 0x0a000001, 9000, 4, 16, 0, 4, 2, 0, false, 0},
		{2, 0x0a000002, 65535, 0, 3, 4, 1, 4, 9003, false, 0},
		{9, 0x7f000001, 1, 65535, 1, 5, 1, 5, 0, false, 0},
		{0, 0xdfffffff, 9000, 1, 4, 6, 1, 6, 65535, false, 0},
		{1048575, 0x01000000, 9000, 2, 131, 7, 32, 7, 1, false, 0},
	};
	struct wvm_topology t = topology("# five\n"
					 "NODE 7 10.0.0.1 9000 4 16\n"
					 "\n"
					 "\tNODE  2\t10.0.0.2 65535 0 3 9003  # memory only\n"
					 "NODE 9 127.0.0.1 1 65535 1\r\n"
					 "NODE 0 223.255.255.255 09000 1 4 65535\n"
					 "NODE 1048575 1.0.0.0 9000 2 131 1");

	ck_assert_uint_eq(t.count, 5);
	ck_assert_uint_eq(t.vnode_count, 39);
	ck_assert_uint_eq(t.total_ram_gb, 155);
	for (unsigned i = 0; i < 5; i++) {
		const struct wvm_conf_node *node = &t.nodes[i];

		ck_assert_uint_eq(node->phys_id, want[i].phys_id);
		ck_assert_uint_eq(node->ip, want[i].ip);
		ck_assert_uint_eq(node->port, want[i].port);
		ck_assert_uint_eq(node->cores, want[i].cores);
		ck_assert_uint_eq(node->ram_gb, want[i].ram_gb);
		ck_assert_uint_eq(node->first_vnode, want[i].first_vnode);
		ck_assert_uint_eq(node->vnode_count, want[i].vnode_count);
		ck_assert_uint_eq(node->line, want[i].line);
		ck_assert_uint_eq(node->ctrl_port, want[i].ctrl_port);
		ck_assert_ptr_eq(wvm_topology_by_phys(&t, node->phys_id), node);
	}
	wvm_topology_free(&t);
	ck_assert_ptr_null(t.nodes);
}
END_TEST

START_TEST(lookups_find_each_node_and_nothing_else)
{
	struct wvm_topology t = topology("NODE 5 10.0.0.1 9000 4 12\n"
					 "NODE 1 10.0.0.2 9000 4 1\n"
					 "NODE 3 10.0.0.3 9000 4 9\n");
	static const unsigned owner[] = {5, 5, 5, 1, 3, 3}, after[] = {1, 3, 5, 1};

	for (uint32_t vnode = 0; vnode < 6; vnode++)
		ck_assert_uint_eq(wvm_topology_by_vnode(&t, vnode)->phys_id, owner[vnode]);
	ck_assert_ptr_null(wvm_topology_by_vnode(&t, 6));
	ck_assert_ptr_null(wvm_topology_by_vnode(&t, UINT32_MAX));
	for (uint32_t phys = 0; phys < 10; phys++) {
		const struct wvm_conf_node *node = wvm_topology_by_phys(&t, phys);

		ck_assert_int_eq(!!node, phys == 1 || phys == 3 || phys == 5);
		ck_assert(!node || node->phys_id == phys);
	}
	ck_assert_ptr_null(wvm_topology_by_phys(&t, UINT32_MAX));
	for (unsigned i = 0; i < 3; i++)
		ck_assert_uint_eq(
			wvm_topology_after(&t, wvm_topology_by_phys(&t, after[i]))->phys_id,
			after[i + 1]);
	wvm_topology_free(&t);
}
END_TEST

START_TEST(the_sidecar_may_stand_in_every_line)
{
	struct wvm_topology t = topology("NODE 0 127.0.0.1 8000 4 16\n"
					 "NODE 1 127.0.0.1 8000 4 16\n"
					 "NODE 2 10.0.0.2 8000 4 16\n");

	ck_assert(wvm_conf_node_is_sidecar(&t.nodes[0]));
	ck_assert(wvm_conf_node_is_sidecar(&t.nodes[1]));
	ck_assert(!wvm_conf_node_is_sidecar(&t.nodes[2]));
	wvm_topology_free(&t);
}
END_TEST

START_TEST(a_million_nodes_are_read)
{
	const uint32_t count = WVM_NODE_MAX;
	char *text = malloc((size_t)count * 48);
	struct wvm_topology t;
	size_t len = 0;

	ck_assert_ptr_nonnull(text);
	for (uint32_t i = 0; i < count; i++) /* an odd factor scatters the ids */
		len += (size_t)sprintf(text + len, "NODE %u 10.%u.%u.%u 9000 2 4\n",
				       i * 7919u % count, i >> 16, i >> 8 & 255, i & 255);
	ck_assert_msg(!wvm_topology_parse(&t, "t", text, len, err, sizeof(err)), "%s", err);
	ck_assert_uint_eq(t.vnode_count, count);
	for (uint32_t i = 0; i < count; i += 97) {
		ck_assert_ptr_eq(wvm_topology_by_vnode(&t, i), &t.nodes[i]);
		ck_assert_ptr_eq(wvm_topology_by_phys(&t, i * 7919u % count), &t.nodes[i]);
	}
	wvm_topology_free(&t);
	free(text);
}
END_TEST

START_TEST(placed_ranges_are_sorted_whatever_their_lines)
{
	static const char text[] = "PLACE 1 4096 2 9\n"
				   "NODE 9 10.0.0.1 9000 4 4\n"
				   "PLACE 0 4294967294 2 9\n"
				   "NODE 3 10.0.0.2 9000 4 8\n"
				   "PLACE 1 0 4096 3 # node 0 of the guest\n"
				   "PLACE 65535 0 4294967296 3\n";
	static const struct wvm_layout_range expected[] = {
		{.first = 0x7fffffff, .units = 1, .member = 0, .line = 3},
		{.first = 1ull << 32, .units = 2048, .member = 1, .line = 5},
		{.first = (1ull << 32) + 2048, .units = 1, .member = 0, .line = 1},
		{.first = 0xffffull << 32, .units = 1ull << 31, .member = 1, .line = 6},
	};
	struct wvm_topology t;

	ck_assert_int_eq(wvm_topology_parse(&t, "t.conf", text, strlen(text), err, sizeof(err)), 0);
	ck_assert_uint_eq(t.count, 2);
	ck_assert_uint_eq(t.place_count, 4);
	ck_assert_mem_eq(t.places, expected, sizeof(expected));
	wvm_topology_free(&t);
	ck_assert_ptr_null(t.places);
}
END_TEST

START_TEST(a_node_is_spare_by_a_line_anywhere)
{
	static const char text[] = "SPARE 7 # for later\n" N2 N0 "\tSPARE  2\r\n"
				   "NODE 7 10.0.0.8 9000 4 64\n" N1 "PLACE 0 0 512 1\n";
	static const bool spare[] = {true, false, true, false};
	struct wvm_topology t;

	ck_assert_int_eq(wvm_topology_parse(&t, "t.conf", text, strlen(text), err, sizeof(err)), 0);
	ck_assert_uint_eq(t.count, 4);
	for (unsigned i = 0; i < 4; i++)
		ck_assert_int_eq(t.nodes[i].spare, spare[i]);
	/* They are part of the cluster as all others. */
	ck_assert_uint_eq(t.total_ram_gb, 64 + 3 * 16);
	ck_assert_uint_eq(t.vnode_count, 16 + 3 * 4);
	ck_assert_uint_eq(wvm_topology_by_phys(&t, 7)->first_vnode, 8);
	ck_assert_uint_eq(t.places[0].member, 3);
	wvm_topology_free(&t);
}
END_TEST

/* Nobody reads as many: what is a mistake must not take memory without end. */
START_TEST(spare_lines_have_a_bound)
{
	static const char line[] = "SPARE 1\n";
	size_t len = strlen(line), count = WVM_NODE_MAX + 1, at = strlen(N0);
	char *text = malloc(at + count * len + 1);

	memcpy(text, N0, at);
	for (size_t i = 0; i < count; i++, at += len)
		memcpy(text + at, line, len);
	ck_assert_int_eq(parse(NODES, text, at), -EINVAL);
	ck_assert_str_eq(err, "t.conf:1048578: 'SPARE' is one too many: there are at most 1048576 "
			      "nodes");
	ck_assert_int_eq(parse(NODES, text, at - len), -EINVAL);
	ck_assert_str_eq(err, "t.conf:2: phys_id '1' is that of no NODE line: correct it, or take "
			      "this line out");
	free(text);
}
END_TEST

START_TEST(placed_ranges_have_a_bound)
{
	size_t room = 64 + (WVM_LAYOUT_MAX + 1) * 32;
	char *text = malloc(room), *at = text;
	struct wvm_topology t;

	at += sprintf(at, N0);
	for (unsigned i = WVM_LAYOUT_MAX; i--;)
		at += sprintf(at, "PLACE 0 %u 2 0\n", 4 * i);
	ck_assert_int_eq(
		wvm_topology_parse(&t, "t.conf", text, (size_t)(at - text), err, sizeof(err)), 0);
	ck_assert_uint_eq(t.place_count, WVM_LAYOUT_MAX);
	for (unsigned i = 0; i < WVM_LAYOUT_MAX; i++)
		ck_assert_uint_eq(t.places[i].first, 2 * i);
	wvm_topology_free(&t);
	at += sprintf(at, "PLACE 1 0 2 0\n");
	ck_assert_int_eq(parse(NODES, text, (size_t)(at - text)), -EINVAL);
	ck_assert_str_eq(err,
			 "t.conf:4098: 'PLACE' is one too many: at most 4096; join ranges that "
			 "adjoin");
	free(text);
}
END_TEST

START_TEST(routes_are_found_by_range_then_default)
{
	static const char text[] = "ROUTE 100 50 10.0.0.1 8000\n"
				   "ROUTE 0 0 10.0.0.9 8009 # the rest\n"
				   "ROUTE 0 4 10.0.0.2 8000\n"
				   "ROUTE 150 1 10.0.0.3 8001\n"
				   "ROUTE 1048575 1 10.0.0.4 8000\n";
	static const struct {
		uint32_t vnode, line;
	} want[] = {{0, 3},   {3, 3},   {4, 2},   {99, 2},      {100, 1},
		    {149, 1}, {150, 4}, {151, 2}, {1048574, 2}, {1048575, 5}};
	struct wvm_routes r;

	ck_assert_msg(!wvm_routes_parse(&r, "r", text, strlen(text), err, sizeof(err)), "%s", err);
	ck_assert_uint_eq(r.count, 4);
	for (size_t i = 0; i < sizeof(want) / sizeof(want[0]); i++)
		ck_assert_uint_eq(wvm_routes_find(&r, want[i].vnode)->line, want[i].line);
	ck_assert_ptr_null(wvm_routes_find(&r, WVM_NODE_MAX));
	ck_assert_uint_eq(wvm_routes_find(&r, 150)->ip, 0x0a000003);
	ck_assert_uint_eq(wvm_routes_find(&r, 150)->port, 8001);
	ck_assert_uint_eq(r.fallback.port, 8009);
	wvm_routes_free(&r);
}
END_TEST

START_TEST(without_a_default_route_the_rest_has_none)
{
	struct wvm_routes r;

	ck_assert_int_eq(wvm_routes_parse(&r, "r", "ROUTE 2 2 10.0.0.1 8000", 23, err, 512), 0);
	ck_assert_ptr_null(wvm_routes_find(&r, 1));
	ck_assert_ptr_nonnull(wvm_routes_find(&r, 3));
	ck_assert_ptr_null(wvm_routes_find(&r, 4));
	wvm_routes_free(&r);
	ck_assert_int_eq(wvm_routes_parse(&r, "r", "# none", 6, err, sizeof(err)), 0);
	ck_assert_uint_eq(r.count, 0);
	ck_assert_ptr_null(wvm_routes_find(&r, 0));
	wvm_routes_free(&r);
}
END_TEST

START_TEST(devices_are_read_with_their_bars)
{
	static const char text[] = "DEVICE 0000:01:00.0 12\n"
				   "  BAR0 0xfe000000 0x1000000\n"
				   "  BAR2 34359738368 0X10000 # decimal\n"
				   "END\n"
				   "\n"
				   "DEVICE AB:1f.7 /dev/vfio/3\n"
				   "BAR5 0xfd000000 0x1000000 # right below BAR0\n"
				   "BAR1 0xff000000 16 # and right above\n"
				   "END\n";
	struct wvm_devices d;

	ck_assert_msg(!wvm_devices_parse(&d, "d", text, strlen(text), err, sizeof(err)), "%s", err);
	ck_assert_uint_eq(d.count, 2);
	ck_assert_str_eq(d.devices[0].pci, "0000:01:00.0");
	ck_assert_uint_eq(d.devices[0].group, 12);
	ck_assert_uint_eq(d.devices[0].bar_count, 2);
	ck_assert_uint_eq(d.devices[0].bars[0].gpa, 0xfe000000);
	ck_assert_uint_eq(d.devices[0].bars[0].size, 0x1000000);
	ck_assert_uint_eq(d.devices[0].bars[1].index, 2);
	ck_assert_uint_eq(d.devices[0].bars[1].gpa, UINT64_C(34359738368));
	ck_assert_uint_eq(d.devices[0].bars[1].size, 0x10000);
	ck_assert_uint_eq(d.devices[0].bars[1].line, 3);
	ck_assert_str_eq(d.devices[1].pci, "0000:ab:1f.7");
	ck_assert_uint_eq(d.devices[1].group, 3);
	ck_assert_uint_eq(d.devices[1].line, 6);
	ck_assert_uint_eq(d.devices[1].bar_count, 2);
	ck_assert_uint_eq(d.devices[1].bars[0].index, 5);
	wvm_devices_free(&d);
}
END_TEST

START_TEST(devices_have_a_bound)
{
	char text[(WVM_DEVICES_MAX + 1) * 64];
	size_t len = 0, last = 0;

	for (unsigned i = 0; i <= WVM_DEVICES_MAX; i++) {
		last = len;
		len += (size_t)sprintf(text + len, "DEVICE %02x:%02x.0 %u\nBAR0 %u 4096\nEND\n",
				       i / 32, i % 32, i, i * 4096);
	}
	ck_assert_int_eq(parse(DEVICES, text, last), 0);
	ck_assert_int_eq(parse(DEVICES, text, len), -EINVAL);
	ck_assert_str_eq(err, "d.conf:769: 'DEVICE' is one more than the 256 that are possible");
}
END_TEST

START_TEST(a_file_is_read_whole)
{
	char path[] = "/tmp/check_conf.XXXXXX", want[600];
	int fd = mkstemp(path);
	FILE *file = fdopen(fd, "w");
	struct wvm_topology t;
	struct wvm_routes r;
	struct wvm_devices d;

	ck_assert_ptr_nonnull(file);
	for (int i = 0; i < 5000; i++)
		fprintf(file, "NODE %d 10.0.%d.%d 9000 2 4\n", i, i / 250, i % 250 + 1);
	fclose(file);
	ck_assert_msg(!wvm_topology_load(&t, path, err, sizeof(err)), "%s", err);
	ck_assert_uint_eq(t.count, 5000);
	wvm_topology_free(&t);
	ck_assert_int_eq(wvm_routes_load(&r, path, err, sizeof(err)), -EINVAL);
	snprintf(want, sizeof(want), "%s:1: 'NODE' is not ROUTE", path);
	ck_assert_str_eq(err, want);
	ck_assert_int_eq(wvm_devices_load(&d, path, err, sizeof(err)), -EINVAL);
	snprintf(want, sizeof(want), "%s:1: 'NODE' is not DEVICE, BAR<n> or END", path);
	ck_assert_str_eq(err, want);
	unlink(path);
}
END_TEST

START_TEST(a_file_that_cannot_be_read_is_told)
{
	char dir[] = "/tmp/check_conf.XXXXXX", path[64], want[600];
	struct wvm_topology t;

	ck_assert_ptr_nonnull(mkdtemp(dir));
	ck_assert_int_eq(wvm_topology_load(&t, dir, err, sizeof(err)), -EINVAL);
	snprintf(want, sizeof(want), "%s: not a regular file", dir);
	ck_assert_str_eq(err, want);

	snprintf(path, sizeof(path), "%s/f", dir);
	ck_assert_int_eq(wvm_topology_load(&t, path, err, sizeof(err)), -ENOENT);
	snprintf(want, sizeof(want), "%s: No such file or directory", path);
	ck_assert_str_eq(err, want);

	ck_assert_int_eq(mkfifo(path, 0600), 0); /* must not wait for a writer */
	ck_assert_int_eq(wvm_topology_load(&t, path, err, sizeof(err)), -EINVAL);
	unlink(path);

	fclose(fopen(path, "w"));
	ck_assert_int_eq(truncate(path, (128 << 20) + 1), 0);
	ck_assert_int_eq(wvm_topology_load(&t, path, err, sizeof(err)), -EFBIG);
	snprintf(want, sizeof(want), "%s: larger than 128 MiB", path);
	ck_assert_str_eq(err, want);
	ck_assert_int_eq(truncate(path, 0), 0);
	ck_assert_int_eq(wvm_topology_load(&t, path, err, sizeof(err)), -EINVAL);
	snprintf(want, sizeof(want), "%s: there is no NODE line", path);
	ck_assert_str_eq(err, want);
	unlink(path);
	rmdir(dir);
}
END_TEST

/* Run from the top of the tree, as `make check` does. */
START_TEST(the_example_topologies_are_what_their_comments_say)
{
	static const struct {
		const char *path;
		uint32_t count, vnode_count;
		uint64_t total_ram_gb;
		uint32_t place_count;
	} want[] = {
		{"deploy/topologies/flat-3.conf", 3, 12, 48, 0},
		{"deploy/topologies/one-host-3.conf", 3, 3, 12, 0},
		{"deploy/topologies/large-and-small.conf", 4, 41, 164, 0},
		{"deploy/topologies/numa-2.conf", 2, 8, 32, 2},
		{"deploy/topologies/spare-4.conf", 4, 16, 64, 0},
		{"deploy/topologies/sidecar-3.conf", 3, 12, 48, 0},
		{"deploy/topologies/federation-2x2.conf", 4, 16, 64, 0},
	};

	for (size_t i = 0; i < sizeof(want) / sizeof(want[0]); i++) {
		struct wvm_topology t;

		ck_assert_msg(!wvm_topology_load(&t, want[i].path, err, sizeof(err)), "%s", err);
		ck_assert_uint_eq(t.count, want[i].count);
		ck_assert_uint_eq(t.vnode_count, want[i].vnode_count);
		ck_assert_uint_eq(t.total_ram_gb, want[i].total_ram_gb);
		ck_assert_uint_eq(t.place_count, want[i].place_count);
		for (uint32_t k = 0; k < t.place_count; k++) {
			ck_assert_uint_eq(t.places[k].units, 4096);
			ck_assert_uint_eq(t.places[k].first, 4096 * k);
			ck_assert_uint_eq(t.nodes[t.places[k].member].phys_id, k);
		}
		wvm_topology_free(&t);
	}
}
END_TEST

static void load_routes(struct wvm_routes *r, const char *name)
{
	char path[80];

	snprintf(path, sizeof(path), "deploy/topologies/routes/%s.routes", name);
	ck_assert_msg(!wvm_routes_load(r, path, err, sizeof(err)), "%s", err);
	ck_assert(!r->has_default);
}

/* The sidecar of a node of the topology routes that node's vnodes, all to its own master. */
static void check_leaf(const struct wvm_topology *t, uint32_t i)
{
	struct wvm_routes leaf;
	char name[16];

	ck_assert(wvm_conf_node_is_sidecar(&t->nodes[i]));
	snprintf(name, sizeof(name), "leaf-%u", i);
	load_routes(&leaf, name);
	for (uint32_t v = 0; v < t->vnode_count; v++) {
		const struct wvm_route *r = wvm_routes_find(&leaf, v);

		ck_assert(!r == (wvm_topology_by_vnode(t, v) != &t->nodes[i]));
		ck_assert(!r || (r->ip >> 24 == 127 && r->port == 9000));
	}
	wvm_routes_free(&leaf);
}

/* Every vnode of the topology has its own sidecar, and the pod's gateway has a way to it. */
START_TEST(the_example_routes_fit_their_topology)
{
	struct wvm_topology t;
	struct wvm_routes pod;

	ck_assert(!wvm_topology_load(&t, "deploy/topologies/sidecar-3.conf", err, sizeof(err)));
	load_routes(&pod, "pod");
	for (uint32_t i = 0; i < t.count; i++)
		check_leaf(&t, i);
	for (uint32_t v = 0; v < t.vnode_count; v++)
		ck_assert_ptr_nonnull(wvm_routes_find(&pod, v));
	wvm_routes_free(&pod);
	wvm_topology_free(&t);
}
END_TEST

/* The core knows which pod has a vnode, and that pod, not the other one, which of its hosts. */
START_TEST(the_routes_of_the_federation_lead_down_to_every_node)
{
	static const uint32_t pod_ip[] = {0x0a000001, 0x0a000002},
			      host_ip[] = {0xc0a80a0a, 0xc0a80a0b, 0xc0a8140a, 0xc0a8140b};
	struct wvm_topology t;
	struct wvm_routes pod[2], core;

	ck_assert(
		!wvm_topology_load(&t, "deploy/topologies/federation-2x2.conf", err, sizeof(err)));
	load_routes(&pod[0], "federation-pod-a");
	load_routes(&pod[1], "federation-pod-b");
	load_routes(&core, "federation-core");
	for (uint32_t i = 0; i < t.count; i++)
		check_leaf(&t, i);
	for (uint32_t v = 0; v < t.vnode_count; v++) {
		uint32_t node = (uint32_t)(wvm_topology_by_vnode(&t, v) - t.nodes);
		const struct wvm_route *r = wvm_routes_find(&core, v);

		ck_assert(r && r->ip == pod_ip[node / 2] && r->port == 8000);
		r = wvm_routes_find(&pod[node / 2], v);
		ck_assert(r && r->ip == host_ip[node] && r->port == 8000);
		ck_assert_ptr_null(wvm_routes_find(&pod[1 - node / 2], v));
	}
	wvm_routes_free(&pod[0]);
	wvm_routes_free(&pod[1]);
	wvm_routes_free(&core);
	wvm_topology_free(&t);
}
END_TEST

static uint64_t random_state = 2;

static uint64_t random64(void) /* splitmix64 */
{
	uint64_t z = random_state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

/* A file is read, or refused with one line that begins with its name. */
START_TEST(mutated_files_are_read_or_refused_with_one_line)
{
	static const char *const seeds[] = {
		("NODE 0 10.0.0.1 9000 4 16\nNODE 1 10.0.0.2 9000 8 64 # x\n"
		 "PLACE 0 0 512 1\nPLACE 1 512 2 0\nSPARE 2\nNODE 2 10.0.0.3 1 1 1\n"),
		"ROUTE 0 0 10.0.0.1 8000\nROUTE 8 4 10.0.0.2 8000\n",
		"DEVICE 0000:01:00.0 12\nBAR0 0x1000 4096\nEND\n",
	};
	unsigned good = 0;

	for (int i = 0; i < 300000; i++) {
		enum kind kind = (enum kind)(random64() % 3);
		char text[256];
		size_t len = strlen(seeds[kind]);
		int rc;

		memcpy(text, seeds[kind], len);
		for (unsigned k = (unsigned)random64() % 4; k; k--)
			text[random64() % len] = random64() % 4 ? "0129ax. \n#:-"[random64() % 12]
								: (char)random64();
		rc = parse(kind, text, random64() % 4 ? len : random64() % (len + 1));
		good += !rc;
		ck_assert(rc == 0 || rc == -EINVAL);
		ck_assert_int_eq(!*err, !rc);
		ck_assert(!rc || !strncmp(err, &"t.conf:\0r.conf:\0d.conf:"[kind * 8], 7));
		ck_assert_ptr_null(strchr(err, '\n'));
	}
	ck_assert_uint_gt(good, 1000);
	ck_assert_uint_lt(good, 250000);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("conf");
	TCase *tc = tcase_create("conf");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_set_timeout(tc, 300);
	tcase_add_loop_test(tc, a_malformed_file_is_told_by_file_line_and_field, 0, MALFORMED);
	tcase_add_test(tc, a_line_of_255_characters_is_read);
	tcase_add_test(tc, a_nul_byte_is_not_text);
	tcase_add_test(tc, an_error_is_cut_to_its_buffer);
	tcase_add_test(tc, vnodes_are_dealt_in_the_order_of_the_file);
	tcase_add_test(tc, lookups_find_each_node_and_nothing_else);
	tcase_add_test(tc, the_sidecar_may_stand_in_every_line);
	tcase_add_test(tc, a_million_nodes_are_read);
	tcase_add_test(tc, placed_ranges_are_sorted_whatever_their_lines);
	tcase_add_test(tc, a_node_is_spare_by_a_line_anywhere);
	tcase_add_test(tc, spare_lines_have_a_bound);
	tcase_add_test(tc, placed_ranges_have_a_bound);
	tcase_add_test(tc, routes_are_found_by_range_then_default);
	tcase_add_test(tc, without_a_default_route_the_rest_has_none);
	tcase_add_test(tc, devices_are_read_with_their_bars);
	tcase_add_test(tc, devices_have_a_bound);
	tcase_add_test(tc, a_file_is_read_whole);
	tcase_add_test(tc, a_file_that_cannot_be_read_is_told);
	tcase_add_test(tc, the_example_topologies_are_what_their_comments_say);
	tcase_add_test(tc, the_example_routes_fit_their_topology);
	tcase_add_test(tc, the_routes_of_the_federation_lead_down_to_every_node);
	tcase_add_test(tc, mutated_files_are_read_or_refused_with_one_line);
	suite_add_tcase(suite, tc);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
