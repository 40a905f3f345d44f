#!/bin/bash
# A guest with two vCPUs, on a single core of one node and on a core each of two nodes: how long two
# threads compute that have nothing to do with each other, and how long the boot takes, with the exits
# and faults that it costs to be on two. The cluster is these two nodes, and both masters and slaves have their
# share of their cores.
#   bench/guest-vcpus.sh         prints the rounds, exits, and "ratio guest-compute ...", "ratio guest-vcpu-boot ..."
# Environment: BUILD (default: build), ROUNDS (5), GUEST_MIB (256), nodes_guest_json (a file for the result of
# computing as JSON; that of the boots gets .boot behind its name). Needs two processors, and qemu-accel/build.sh
# and deploy/guest/build.sh to have run.
set -u
cd -- "$(dirname -- "$0")/.." || exit 1
# shellcheck source=bench/nodes.sh
. bench/nodes.sh
rounds=${ROUNDS:-5}
mib=${GUEST_MIB:-256}
qemu=$BUILD/qemu/qemu-system-x86_64

# guest MODE ACCELERATOR: its console; seconds from start to power-off in $seconds. On core 0.
guest() {
	local began=${EPOCHREALTIME/,/.} status ended
	console=$NODES_DIR/console
	WVM_RING_PATH=$NODES_DIR/ring.0 timeout 600 taskset -c 0 deploy/guest/run.sh "$qemu" "wvm.mode=$1" \
		-accel "$2" -m "$mib" -smp 2 >"$console" 2>&1 </dev/null
	status=$? ended=${EPOCHREALTIME/,/.}
	if ((status != 0)) || ! grep -q 'Power down' "$console"; then
		nodes_say "the guest under '$2' did not boot and power off (status $status):"
		tail -n 5 "$console" >&2
		return 1
	fi
	seconds=$(awk "BEGIN { printf \"%.3f\", $ended - $began }")
}

# both ACCELERATOR: boots it twice on nodes that are up: $computed and $seconds (of the boot alone).
both() {
	guest compute "$1" || return 1
	computed=$(sed -n 's/^compute 2 processors: \([0-9.]*\) s.*/\1/p' "$console")
	guest boot "$1"
}

faults() { echo "$(nodes_counter "$1" faults_read) $(nodes_counter "$1" faults_write)"; }

nodes_enter "$@"
if [[ ! -x $qemu || ! -s $BUILD/guest/vmlinux ]]; then
	nodes_say "no $qemu or no guest; run 'make qemu' first"
	exit 1
fi
if (($(nproc) < 2)); then
	nodes_say "two nodes with a core each need two processors"
	exit 1
fi
one=() two=() boot_one=() boot_two=()
one_node() {
	nodes_up "${mib}M" "0 1" || return 1
	both wavevm,mode=user,backend=tcg || return 1
	one+=("$computed") boot_one+=("$seconds")
	one_faults="node 0 $(faults 0)"
	nodes_down
}
two_nodes() {
	nodes_up "${mib}M" "0 1" || return 1
	nodes_slave 1 1 --no-kvm --qemu "$qemu"
	both wavevm,mode=user,backend=tcg,split=1,remote=1,report=on || return 1
	two+=("$computed") boot_two+=("$seconds")
	two_faults="node 0 $(faults 0), node 1 $(faults 1)"
	exits=$(sed -n 's/^wavevm: \(vCPU .*\)/\1/p' "$console")
	nodes_down
}
for ((i = 1; i <= rounds; i++)); do
	if ((i % 2)); then
		one_node && two_nodes || exit 1
	else
		two_nodes && one_node || exit 1
	fi
	printf 'round %d: compute %s s on one node, %s s on two; boot %s s and %s s\n' "$i" \
		"${one[-1]}" "${two[-1]}" "${boot_one[-1]}" "${boot_two[-1]}"
done
printf 'faults (reads writes) of both guests: on one node: %s; on two: %s\n' "$one_faults" "$two_faults"
printf 'runs of a boot on two: %s\n' "$exits"
nodes_ratio guest-compute two-cores "${two[*]}" "${one[*]}"
nodes_ratio guest-vcpu-boot two-cores "${boot_two[*]}" "${boot_one[*]}"
if [[ -n ${nodes_guest_json:-} ]]; then
	nodes_series guest-compute s "one node" "${two[*]}" "${one[*]}" "" two-cores >"$nodes_guest_json"
	nodes_series guest-vcpu-boot s "one node" "${boot_two[*]}" "${boot_one[*]}" "" two-cores \
		>"$nodes_guest_json.boot"
fi
