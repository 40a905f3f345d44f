#!/bin/bash
# Makes the demo's guest: Debian's kernel as an uncompressed vmlinux, which boots without a boot
# loader, and an initramfs whose first process is the test program in this folder.
#   deploy/guest/build.sh          results in build/guest: vmlinux, initramfs, initramfs.tools, init
# initramfs holds the test program alone; initramfs.tools also a shell and the modules for a disk and a network.
# Environment: BUILD (default: build), V=1 (show everything), CC.
# It only does what is not done yet.
set -euo pipefail
export LC_ALL=C

here=$(cd -P "$(dirname "$0")" && pwd)
root=$(dirname "$(dirname "$here")")
BUILD=${BUILD:-build}
case $BUILD in /*) ;; *) BUILD=$root/$BUILD ;; esac
out=$BUILD/guest
kernel=$out/kernel
V=${V:-0}
CC=${CC:-cc}

# What disk.c and net.c need, by the names of the modules.
MODULES="virtio_pci virtio_blk virtio_net"

say() { printf '%-5s %s\n' GUEST "$*"; }

die() {
	echo "deploy/guest/build.sh: $*" >&2
	exit 1
}

check_tools() {
	local missing=() tool
	for tool in apt-get apt-cache dpkg "$CC" objcopy cpio xz lz4; do
		command -v "$tool" >/dev/null || missing+=("$tool")
	done
	[ -x /bin/busybox ] || missing+=(busybox-static)
	[ ${#missing[@]} = 0 ] || die "not installed: ${missing[*]}. Install: binutils cpio xz-utils lz4 busybox-static"
}

# The kernel that Debian's package for cloud guests stands for, unpacked but not installed.
fetch_kernel() {
	[ -f "$kernel/.unpacked" ] && return
	local package
	package=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null |
		sed -n 's/^ *Depends: \(linux-image-[0-9].*-cloud-amd64\)$/\1/p' | head -n 1)
	[ -n "$package" ] || die "no kernel package in the system's package lists; run apt-get update"
	say "fetching $package"
	rm -rf "$kernel"
	mkdir -p "$kernel"
	(cd "$kernel" && apt-get -q download "$package" >"$out/log" 2>&1 && dpkg -x ./*.deb . &&
		rm -f ./*.deb) || die "cannot fetch $package: $(tail -n 1 "$out/log")"
	touch "$kernel/.unpacked"
}

# Reads a little-endian number of $3 bytes at offset $2 of file $1.
number_at() { od -An -v -t "u$3" -j "$2" -N "$3" "$1" | tr -d ' '; }

# A bzImage says itself where its compressed vmlinux lies (Linux boot protocol 2.08).
extract_vmlinux() {
	local image setup start length magic unpack
	[ "$out/vmlinux" -nt "$kernel/.unpacked" ] && return
	say "extracting vmlinux"
	image=$(ls "$kernel"/boot/vmlinuz-*)
	setup=$(number_at "$image" $((0x1f1)) 1)
	start=$((((setup ? setup : 4) + 1) * 512 + $(number_at "$image" $((0x248)) 4)))
	length=$(number_at "$image" $((0x24c)) 4)
	magic=$(number_at "$image" "$start" 4)
	case $magic in
	$((0x587a37fd))) unpack="xz -dc --single-stream" ;;
	$((0x184c2102))) unpack="lz4 -dcq" ;;
	$((0xfd2fb528))) unpack="zstd -dcq" ;;
	*) die "$image is compressed in an unknown way" ;;
	esac
	# The payload ends with its unpacked size, which the program takes for garbage.
	dd if="$image" iflag=skip_bytes,count_bytes skip="$start" count=$((length - 4)) bs=1M \
		status=none | $unpack >"$out/vmlinux.new"
	[ "$(number_at "$out/vmlinux.new" 0 4)" = $((0x464c457f)) ] || die "no ELF file in $image"
	mv "$out/vmlinux.new" "$out/vmlinux"
}

compile_init() {
	local file newer=0
	local litmus=$here/../../roles/check/litmus
	for file in "$here"/*.[ch] "$here/build.sh" "$litmus/litmus.h" "$litmus"/{tests,tso,clock}.c; do
		[ "$out/init" -nt "$file" ] || newer=1
	done
	[ $newer = 1 ] || return 0
	say "compiling init"
	[ "$V" = 0 ] || set -x
	"$CC" -std=gnu11 -D_GNU_SOURCE -O2 -Wall -Wextra -Werror -static -s -pthread -I"$here/../.." -o "$out/init" \
		"$here"/*.c "$litmus"/{tests,tso,clock}.c
	{ set +x; } 2>/dev/null
}

# Prints the files of a module and of all that it needs, what is needed first. Built-in ones have none.
module_files() {
	local file name
	file=$(find "$kernel/lib/modules" -name "${1//_/[_-]}.ko*" | head -n 1)
	[ -n "$file" ] || return 0
	for name in $(plain_module "$file" | modinfo_depends); do
		module_files "$name"
	done
	echo "$file"
}

plain_module() {
	case $1 in
	*.xz) xz -dc "$1" ;;
	*.zst) zstd -dcq "$1" ;;
	*) cat "$1" ;;
	esac
}

modinfo_depends() {
	local temp=$out/module.tmp
	cat >"$temp"
	objcopy -O binary --only-section=.modinfo "$temp" "$temp.info"
	tr '\0' '\n' <"$temp.info" | sed -n 's/^depends=//p' | tr ',' ' '
}

# pack DIRECTORY FILE
pack() {
	(cd "$1" && find . | sort | cpio -o -H newc -R 0:0 --quiet) >"$2.new"
	mv "$2.new" "$2"
}

make_initramfs() {
	local tree=$out/tree module file name
	[ "$out/initramfs" -nt "$out/init" ] && [ "$out/initramfs" -nt "$kernel/.unpacked" ] &&
		[ "$out/initramfs" -nt "$here/build.sh" ] && return
	say "making initramfs"
	rm -rf "$tree"
	mkdir -p "$tree"/{dev,proc,sys}
	cp "$out/init" "$tree/init"
	cp -r "$tree" "$tree.tools"
	mkdir "$tree.tools"/{bin,modules}
	cp /bin/busybox "$tree.tools/bin/busybox"
	ln -s busybox "$tree.tools/bin/sh"
	for module in $MODULES; do
		for file in $(module_files "$module"); do
			name=$(basename "$file" | sed 's/\.ko.*/.ko/')
			[ -e "$tree.tools/modules/$name" ] && continue
			plain_module "$file" >"$tree.tools/modules/$name"
			echo "$name" >>"$tree.tools/modules/order"
		done
	done
	pack "$tree.tools" "$out/initramfs.tools"
	pack "$tree" "$out/initramfs"
	rm -rf "$tree" "$tree.tools" "$out"/module.tmp*
}

check_tools
mkdir -p "$out"
exec 9>"$out/lock"
flock 9
fetch_kernel
extract_vmlinux
compile_init
make_initramfs
say "$(ls "$kernel/lib/modules"), $out/vmlinux"
