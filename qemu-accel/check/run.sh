#!/bin/bash
# Tests of the QEMU accelerator and of the demo's guest.
#   qemu-accel/check/run.sh [PATTERN]     only tests whose name matches the extended regular expression
# Prints a line per test and at the end "N passed, N failed"; exit status 0 if none failed.
# Environment: WVM_QEMU, WVM_MASTER: the programs (default: in build/); BUILD: where the guest is; CC.
# REWRITES: how often code is rewritten (2000; each costs about the hold time of 10 ms).
# shellcheck disable=SC2046,SC2086 # QEMU options are kept as words
set -uo pipefail
export LC_ALL=C

here=$(cd -P "$(dirname "$0")" && pwd)
root=$(dirname "$(dirname "$here")")
BUILD=${BUILD:-$root/build}
QEMU=${WVM_QEMU:-$BUILD/qemu/qemu-system-x86_64}
MASTER=${WVM_MASTER:-$BUILD/bin/wavevm_node_master}
CTL=$(dirname "$MASTER")/wvm_ctl
only=${1:-.}
work=$(mktemp -d)
shm=/dev/shm/wvm-qemu-check-$$
passed=0 failed=0
masters=() qemu_pid='' port=19000

unset WVM_RING_PATH WVM_ENV_SOCK_PATH WVM_INSTANCE_ID
export WVM_SHM_FILE=$shm

# shellcheck source=qemu-accel/check/lib.sh
. "$here/lib.sh"

# shellcheck disable=SC2317 # called by the trap
clean_up() {
	local pid
	for pid in $qemu_pid "${masters[@]}"; do
		end_process "$pid"
	done
	rm -rf "$work" "$shm"*
}
trap clean_up EXIT
trap 'exit 130' INT TERM HUP

await_end() {
	local n
	for ((n = 0; n < $2 * 10; n++)); do
		kill -0 "$1" 2>/dev/null || return 0
		sleep 0.1
	done
	return 1
}

machine=(-machine q35 -nodefaults -nographic)

# refuses NAME REGEX OPTION...: QEMU ends with status 1 and one line on stderr, which matches.
refuses() {
	local name=$1 regex=$2 status
	shift 2
	wanted "$name" || return 0
	timeout -k 5 60 "$QEMU" "${machine[@]}" "$@" >"$work/out" 2>"$work/err" </dev/null
	status=$?
	if [ $status != 1 ]; then
		fail "$name" "exit status $status instead of 1" "$work/err"
	elif [ "$(wc -l <"$work/err")" != 1 ]; then
		fail "$name" "not exactly one line" "$work/err"
	elif ! grep -Eq "$regex" "$work/err"; then
		fail "$name" "the line does not match '$regex'" "$work/err"
	else
		pass "$name"
	fi
}

# --- what needs no master -------------------------------------------------------------------------

test_options() {
	local a='-accel wavevm,backend=tcg'
	refuses "mode=kernel is refused" 'kernel module.*use mode=user' -accel wavevm,mode=kernel
	refuses "an unknown mode is refused" 'one of user' -accel wavevm,mode=fast
	refuses "an unknown backend is refused" 'one of tcg, kvm, auto' -accel wavevm,backend=xen
	refuses "an unknown option is refused" 'foo' $a,foo=1
	refuses "an option of another backend is refused" 'kernel-irqchip' $a,kernel-irqchip=on
	refuses "a vm-id beyond 16 bits is refused" 'vm-id.*uint16' $a,vm-id=65536
	refuses "no ring path" 'set WVM_RING_PATH' $a
	WVM_RING_PATH=$work/none refuses "no ring file" "$work/none.*is the master running" $a
	WVM_ENV_SOCK_PATH=$work/none refuses "no ring file, by the old name" "$work/none.*is the master" $a
	head -c 8192 /dev/urandom >"$work/junk"
	WVM_RING_PATH=$work/junk refuses "not a ring file" 'not a ring file' $a
	refuses "incoming migration is refused" 'incoming' $a -incoming defer
	refuses "only-migratable is refused" 'migrat' $a -only-migratable
	refuses "locked memory is refused" 'mem-lock' $a -overcommit mem-lock=on
	refuses "the backend needs the accelerator" 'needs -accel wavevm' -accel tcg \
		-object memory-backend-wavevm,id=m,size=64M
	truncate -s 1M "$work/disk"
	refuses "an O_DIRECT drive is refused" 'O_DIRECT.*cache=writeback' $a \
		-drive "if=none,id=d,format=raw,file=$work/disk,cache=none"
	refuses "an O_DIRECT blockdev is refused" 'O_DIRECT.*cache=writeback' $a \
		-blockdev "driver=file,node-name=d,filename=$work/disk,cache.direct=on"
}

# --- the guest: it notices damage, under plain TCG ------------------------------------------------

# start_guest PARAMETERS OPTION...: console in $work/console, QEMU's stderr in $work/err.
start_guest() {
	local parameters=$1 initramfs=$BUILD/guest/initramfs
	shift
	[[ $parameters != *wvm.disk=* && $parameters != *wvm.net=* ]] || initramfs+=.tools
	rm -f "$work/console" "$work/monitor"
	mkfifo "$work/monitor"
	"$QEMU" "${machine[@]}" -no-reboot -serial "file:$work/console" -monitor stdio \
		-kernel "$BUILD/guest/vmlinux" -initrd "$initramfs" \
		-append "console=ttyS0 no_timer_check panic=-1 quiet $parameters" "$@" \
		>"$work/out" 2>"$work/err" <"$work/monitor" &
	qemu_pid=$!
	exec 8>"$work/monitor"
}

# Ends with QEMU's status in $status; 124 if it had to be killed.
finish_guest() {
	if await_end "$qemu_pid" "$1"; then
		wait "$qemu_pid"
		status=$?
	else
		end_process "$qemu_pid"
		status=124
	fi
	exec 8>&-
	qemu_pid=
}

# verifies NAME PARAMETERS REGEX OPTION...: the guest verifies at least half of its 256 MiB; REGEX is found.
verifies() {
	local name=$1 parameters=$2 regex=$3 mib
	shift 3
	wanted "$name" || return 0
	start_guest "wvm.seconds=2 $parameters" "$@" -m 256
	finish_guest 180
	mib=$(sed -n 's/^verified \([0-9]*\) MiB, 0 errors.*/\1/p' "$work/console")
	if [ $status != 0 ]; then
		fail "$name" "QEMU's exit status is $status" "$work/err"
	elif [ "${mib:-0}" -lt 128 ]; then
		fail "$name" "not verified: ${mib:-no} MiB" "$work/console"
	elif ! grep -Eq "$regex" "$work/console"; then
		fail "$name" "'$regex' is not in its output" "$work/console"
	else
		pass "$name"
	fi
}

notices() {
	local kind=$1 name="the guest notices pages that $2"
	wanted "$name" || return 0
	start_guest "wvm.seconds=4" -accel tcg -smp 2 -m 256 -machine memory-backend=m \
		-object "memory-backend-file,id=m,size=256M,share=on,mem-path=$shm.plain"
	await_lines "$work/console" '^random' 120 && "$work/corrupt" "$shm.plain" "$kind" >"$work/out"
	finish_guest 120
	rm -f "$shm.plain"
	if grep -Eq '^verified [0-9]+ MiB, [1-9][0-9]* errors' "$work/console" &&
		grep -Eq '^error 1: .*page [0-9]+ offset [0-9]+ .*expected [0-9a-f]+ got' "$work/console"; then
		pass "$name"
	else
		fail "$name" "it did not" "$work/console"
	fi
}

test_guest() {
	${CC:-cc} -std=gnu11 -D_GNU_SOURCE -I"$root" -Wall -Wextra -Werror -O2 -o "$work/corrupt" \
		"$here/corrupt.c" "$root/deploy/guest/pattern.c" || exit 1
	verifies "the guest verifies its memory, one vCPU" "" '^stress' -accel tcg
	verifies "the guest verifies its memory, two vCPUs" "" 'stress +2 proc' -accel tcg,thread=multi -smp 2
	notices flip "have one bit flipped"
	notices zero "are zeroed"
	notices swap "trade places"
}

# --- with a cluster of three masters on the loopback ----------------------------------------------

# $ram_mb: of the first.
start_master() {
	local id=$1 mb=4096
	[ "$id" != 0 ] || mb=${ram_mb:-4096}
	WVM_RING_PATH=$work/ring.$id WVM_SHM_FILE=$shm.$id "$MASTER" "$mb" $((port + id)) "$work/topology" \
		"$id" $((port + 10 + id)) $((port + 20 + id)) --fresh --state-dir "$work/state.$id" \
		>"$work/master.$id" 2>&1 &
	masters[id]=$!
}

# Masters are ready when all of them have met. A killed one's port stays taken for a moment: each
# cluster gets ports of its own. Arguments: PLACE lines.
start_cluster() {
	local id
	port=$((port + 100))
	for id in 0 1 2; do
		echo "NODE $id 127.0.0.1 $((port + id)) 1 4 $((port + 10 + id))"
	done >"$work/topology"
	printf '%s\n' "$@" >>"$work/topology"
	for id in 0 1 2; do
		start_master "$id"
	done
	for id in 0 1 2; do
		await_lines "$work/master.$id" 'ready, node' 30 && continue
		cat "$work"/master.* >"$work/out"
		fail "master $id starts" "it does not get ready" "$work/out"
		exit 1
	done
	export WVM_RING_PATH=$work/ring.0
}

stop_cluster() {
	local pid
	for pid in "${masters[@]}"; do
		end_process "$pid"
	done
	masters=()
	rm -f "$shm"* "$work"/ring.*
}

tcg='-accel wavevm,backend=tcg'
backend() { echo "-object memory-backend-wavevm,id=$1,size=$2"; }

test_memory_options() {
	refuses "RAM larger than the VM" 'does not fit VM.*use a smaller -m' $tcg -m 64G
	refuses "an unknown VM" 'no VM 77.*vm-id' $tcg,vm-id=77 -m 256
	refuses "RAM beyond the end of the VM" 'does not fit' $tcg -m 256 -machine memory-backend=m \
		$(backend m 256M),offset=12200M
	refuses "RAM that is not made of pages" 'multiples of 4096' $tcg -m 256 -machine memory-backend=m \
		$(backend m 256M),offset=512
	refuses "RAM ranges that overlap" "'b' at offset 64 MiB of VM 0 overlaps 'a'.*leave offset out" $tcg -m 256 $(backend a 128M) $(backend b 128M),offset=64M \
		-numa node,memdev=a -numa node,memdev=b
	refuses "a range that the RAM of -m has" "overlaps 'm'" $tcg -m 256 $(backend m 128M)
	refuses "RAM behind the end of the VM, without an offset" "at offset 8192 MiB does not fit" $tcg -m 16G \
		$(backend a 8G) $(backend b 8G) -numa node,memdev=a -numa node,memdev=b
	refuses "prealloc is refused" 'prealloc' $tcg -m 256 -mem-prealloc
	refuses "share=off is refused" 'share=off' $tcg -m 256 $(backend m 256M),share=off
	refuses "merge=on is refused" 'merge=on' $tcg -m 256 $(backend m 256M),merge=on
	refuses "mem-path is refused" 'mem-path' $tcg -m 256 -mem-path "$work"
	refuses "RAM of this node alone is refused" 'memory-backend-wavevm' $tcg -m 256 \
		-object memory-backend-ram,id=m,size=256M -machine memory-backend=m
	refuses "a file of this node alone is refused" 'memory-backend-wavevm' $tcg -m 256 \
		-object "memory-backend-file,id=m,size=256M,share=on,mem-path=$shm.plain" -machine memory-backend=m
	refuses "a NUMA node of this node alone is refused" "'b' of this node alone.*memory-backend-wavevm" $tcg \
		-m 256 $(backend a 128M) -object memory-backend-memfd,id=b,size=128M \
		-numa node,memdev=a -numa node,memdev=b
	# A reservation is not needed to be refused, and this host may have no huge pages.
	refuses "huge pages are refused" 'huge pages \(hugetlbfs\).*use memory-backend-wavevm' $tcg -m 256 \
		-object memory-backend-memfd,id=m,size=256M,hugetlb=on,hugetlbsize=2M,reserve=off \
		-machine memory-backend=m
	refuses "a DIMM of this node alone is refused" 'memory-backend-wavevm' $tcg -m 256,slots=1,maxmem=1G \
		-object memory-backend-ram,id=m,size=256M -device pc-dimm,memdev=m
	refuses "VFIO is refused" 'vfio-pci lets' $tcg -m 256 -device vfio-pci,host=00:00.0
	refuses "vhost-user is refused" 'vhost-user-blk-pci lets' $tcg -m 256 -device vhost-user-blk-pci
	refuses "a vhost-user netdev is refused" 'vhost' $tcg -m 256 \
		-chardev "socket,id=c,path=$work/sock,server=on,wait=off" \
		-netdev vhost-user,id=n,chardev=c -device virtio-net-pci,netdev=n
}

# Lines for QMP on stdin; the answers one per line on stdout.
qmp() {
	{
		echo '{"execute":"qmp_capabilities"}'
		cat
		echo '{"execute":"quit"}'
		sleep 2
	} | timeout -k 5 60 "$QEMU" "${machine[@]}" -S -qmp stdio "$@" 2>"$work/err"
}

# answers LINE...: what each of the QMP commands got, in $work/answers.
answers() {
	printf '%s\n' "$@" | qmp $tcg -m 256,slots=1,maxmem=1G >"$work/out"
	grep -E '"(return|error)"' "$work/out" | sed '1d;$d' >"$work/answers"
}

# accepts_later NAME LINE...: all of the QMP commands succeed.
accepts_later() {
	local name=$1
	shift
	wanted "$name" || return 0
	answers "$@"
	if [ "$(grep -c '"return"' "$work/answers")" = $# ]; then
		pass "$name"
	else
		fail "$name" "refused" "$work/answers"
	fi
}

# refuses_later NAME REGEX LINE...: the last of the QMP commands fails, the ones before succeed.
refuses_later() {
	local name=$1 regex=$2 last
	shift 2
	wanted "$name" || return 0
	answers "$@"
	last=$(tail -n 1 "$work/answers")
	if [ "$(grep -c '"return"' "$work/answers")" = $(($# - 1)) ] && [[ $last =~ '"error"'.*$regex ]]; then
		pass "$name"
	else
		fail "$name" "not refused, or not by this command" "$work/answers"
	fi
}

# add_ram ID OFFSET-MIB
add_ram() {
	echo "{\"execute\":\"object-add\",\"arguments\":{\"qom-type\":\"memory-backend-wavevm\",\"id\":\"$1\"," \
		"\"size\":268435456,\"offset\":$(($2 << 20))}}"
}
add_file() { echo "{\"execute\":\"blockdev-add\",\"arguments\":{$(file_node "$1")}}"; }
file_node() {
	echo "\"driver\":\"file\",\"node-name\":\"d\",\"filename\":\"$work/disk\",\"cache\":{\"direct\":$1}"
}

test_hotplug() {
	truncate -s 1M "$work/disk"
	refuses_later "an O_DIRECT drive is refused later" O_DIRECT "$(add_file true)"
	refuses_later "reopening a drive with O_DIRECT is refused" O_DIRECT "$(add_file false)" \
		"{\"execute\":\"blockdev-reopen\",\"arguments\":{\"options\":[{$(file_node true)}]}}"
	refuses_later "VFIO is refused later" 'vfio-pci lets' \
		'{"execute":"device_add","arguments":{"driver":"vfio-pci","host":"00:00.0"}}'
	refuses_later "migration is refused" 'cannot be migrated' \
		'{"execute":"migrate","arguments":{"uri":"tcp:127.0.0.1:1"}}'
	refuses_later "a range is mapped once only" overlaps "$(add_ram m 1024)" "$(add_ram n 1024)"
	accepts_later "a memory backend can be added, removed and added again" "$(add_ram m 1024)" \
		'{"execute":"object-del","arguments":{"id":"m"}}' "$(add_ram n 1024)"
	accepts_later "a DIMM of cluster memory can be added" "$(add_ram m 256)" \
		'{"execute":"device_add","arguments":{"driver":"pc-dimm","memdev":"m"}}'
}

test_kvm() {
	local name="it starts over KVM"
	wanted "$name" || return 0
	if [ ! -w /dev/kvm ]; then
		echo "skip  $name: no /dev/kvm here"
		return
	fi
	if echo '{"execute":"query-kvm"}' | qmp -accel wavevm,backend=kvm -m 256 >"$work/out" && grep -q '"enabled": true, "present": true' "$work/out"; then
		pass "$name"
	else
		fail "$name" "it does not" "$work/err"
	fi
}

test_cluster_guest() {
	local disk="file=$work/disk,format=raw"
	verifies "memory of three nodes, one vCPU" "" '^stress' $tcg
	verifies "memory of three nodes, two vCPUs" "" 'stress +2 proc' $tcg -smp 2
	verifies "memory of three nodes by NUMA ranges" "" 'stress +2 proc' $tcg -smp 2 \
		$(backend a 128M),offset=128M $(backend b 128M) \
		-numa node,memdev=a,cpus=0 -numa node,memdev=b,cpus=1
	if wanted "DMA"; then
		"$BUILD/guest/init" --make-disk "$work/disk" 32
		verifies "DMA by virtio-blk, threads" "wvm.disk=1" 'disk +32 MiB' $tcg -drive "if=virtio,$disk"
		"$BUILD/guest/init" --make-disk "$work/disk" 32
		verifies "DMA by virtio-blk, io_uring in an iothread" "wvm.disk=1" 'disk +32 MiB' $tcg -smp 2 \
			-object iothread,id=io -drive "if=none,id=d,aio=io_uring,$disk" \
			-device virtio-blk-pci,drive=d,iothread=io
		verifies "DMA by virtio-net" "wvm.net=1" 'net +[0-9]+ frames' $tcg \
			-netdev hubport,hubid=0,id=n0 -device virtio-net-pci,netdev=n0 \
			-netdev hubport,hubid=0,id=n1 -device virtio-net-pci,netdev=n1
	fi
}

# counter ID SECTION NAME: of a master's.
counter() {
	"$CTL" -p $((port + 10 + $1)) --json stats |
		python3 -c "import json, sys; print(json.load(sys.stdin)['$2']['$3'])"
}

# A guest of two NUMA nodes, each placed at the node of that number, that works on the memory of
# NUMA node $1; node 0, where it runs, may hold half of that. Sets $wire: messages that came off the
# wire after the first pass, which sends home what the kernel needed of the other NUMA node to begin with.
work_on_node() {
	ram_mb=64 start_cluster "PLACE 0 0 256 0" "PLACE 0 256 256 1"
	start_guest "wvm.seconds=0 wvm.mib=128 wvm.node=$1" $tcg -smp 2 -m 512 \
		$(backend a 256M) $(backend b 256M) -numa node,memdev=a,cpus=0 -numa node,memdev=b,cpus=1
	await_lines "$work/console" '^ascending' 200
	wire=-$(($(counter 0 node messages_received) + $(counter 1 node messages_received)))
	await_lines "$work/console" '^verified 128 MiB, 0 errors' 300
	wire=$((wire + $(counter 0 node messages_received) + $(counter 1 node messages_received)))
	homed=$(counter 2 core home_units)
	finish_guest 60
	stop_cluster
}

test_numa() {
	local name="NUMA nodes of the guest are where PLACE lines put them" wire homed near
	wanted "$name" || return 0
	work_on_node 0
	near=$wire
	if ! grep -Eq '^numa +node 0: processors 0, 2[0-9]+ MiB' "$work/console" ||
		! grep -Eq '^numa +node 1: processors 1, 2[0-9]+ MiB' "$work/console" ||
		grep -Eq '^numa +node 2' "$work/console"; then
		fail "$name" "the guest sees others" "$work/console"
	elif ! grep -Eq '^verified 128 MiB, 0 errors' "$work/console"; then
		fail "$name" "not verified" "$work/console"
	elif [ "$homed" != 0 ]; then
		fail "$name" "node 2, where nothing is placed, is home of $homed units"
	else
		pass "$name"
	fi
	name="a guest that works on its own NUMA node asks no other node"
	work_on_node 1
	if ! grep -Eq '^verified 128 MiB, 0 errors' "$work/console"; then
		fail "$name" "not verified" "$work/console"
	elif [ $((near * 50)) -lt "$wire" ]; then
		pass "$name: $near messages, $wire on the other's"
	else
		fail "$name" "$near messages, and $wire when it works on the other's"
	fi
}

# writes NAME MODE TIMES VCPUS [,OPTION...]: the guest of stale.S, and stale_writer on another node.
writes() {
	local name=$1 mode=$2 times=$3 vcpus=$4 status
	shift 4
	wanted "$name" || return 0
	start_cluster
	"$QEMU" "${machine[@]}" -accel "wavevm,backend=tcg${1:-}" -smp "$vcpus" -m 64 -kernel "$work/stale" \
		>"$work/out" 2>"$work/err" </dev/null &
	qemu_pid=$!
	WVM_RING_PATH=$work/ring.1 "$work/stale_writer" "$mode" "$times" "$vcpus" >"$work/writer" 2>&1
	status=$?
	if [ $status = 0 ] && kill -0 "$qemu_pid"; then
		pass "$name: $(tail -n 1 "$work/writer")"
	else
		cat "$work/err" >>"$work/writer"
		fail "$name" "status $status" "$work/writer"
	fi
	end_process "$qemu_pid"
	qemu_pid=
	stop_cluster
}

test_stale() {
	${CC:-cc} -m32 -c -o "$work/stale.o" "$here/stale.S" &&
		ld -m elf_i386 -Ttext 0x100000 -o "$work/stale" "$work/stale.o" &&
		${CC:-cc} -std=gnu11 -D_GNU_SOURCE -I"$root" -Wall -Wextra -Werror -O2 -o "$work/stale_writer" \
			"$here/stale_writer.c" "$BUILD/libwavevm.a" -lpthread || exit 1
	writes "code that another node rewrites is executed as it is, one vCPU" code $((${REWRITES:-2000} / 10)) 1
	writes "code that another node rewrites is executed as it is, two vCPUs" code "${REWRITES:-2000}" 2
	writes "code that another node rewrites is executed as it is, one thread" code \
		$((${REWRITES:-2000} / 30)) 2 ,thread=single
	writes "a misaligned atomic instruction is one to other nodes" add 3000 1
}

test_reset() {
	local name="a reset guest boots again"
	wanted "$name" || return 0
	start_guest "wvm.mode=test wvm.seconds=2" $tcg -smp 2 -m 256 -action reboot=reset
	await_lines "$work/console" '^random' 120
	echo system_reset >&8
	finish_guest 120
	if [ $status = 0 ] && [ "$(grep -c 'guest +[0-9]* proc\|Booting from ROM' "$work/console")" = 2 ] &&
		grep -Eq '^verified [0-9]+ MiB, 0 errors' "$work/console"; then
		pass "$name"
	else
		fail "$name" "it does not" "$work/console"
	fi
}

# ends NAME LINES: QEMU, told to end, is gone; stderr has exactly one line that matches each of LINES.
ends() {
	local name=$1 regex
	shift
	finish_guest 60
	if [ $status = 124 ]; then
		fail "$name" "it did not end" "$work/err"
		return
	fi
	for regex in "$@"; do
		if [ "$(grep -Ec "$regex" "$work/err")" != 1 ]; then
			fail "$name" "not exactly one line matches '$regex'" "$work/err"
			return
		fi
	done
	pass "$name"
}

# A home dies for good while the guest works on memory of all nodes.
test_lost_home() {
	local name how
	for how in SIGTERM quit; do
		name="$how ends QEMU with a vCPU stopped in a lost page"
		wanted "$name" || continue
		start_cluster
		start_guest "wvm.seconds=60" $tcg -smp 2 -m 512
		await_lines "$work/console" 'guest +[0-9]+ proc' 60
		end_process "${masters[2]}"
		if ! await_lines "$work/err" 'cannot be had.*SIGTERM ends QEMU' 60; then
			fail "$name" "the lost page is not reported" "$work/err"
		fi
		if [ $how = SIGTERM ]; then kill -TERM "$qemu_pid"; else echo quit >&8; fi
		ends "$name" 'cannot be had' 'ending without it'
		stop_cluster
	done
}

# The main loop itself reads the lost page, holding all of QEMU's locks that count.
test_lost_main_loop() {
	local name="SIGTERM ends QEMU with its main loop stopped in a lost page"
	wanted "$name" || return 0
	start_cluster
	start_guest "" $tcg -m 512 -S
	echo "info status" >&8
	await_lines "$work/out" '^VM status' 60
	end_process "${masters[2]}"
	echo "pmemsave 0 0x20000000 \"$work/saved\"" >&8
	await_lines "$work/err" 'cannot be had' 60 || fail "$name" "the lost page is not reported" "$work/err"
	kill -TERM "$qemu_pid"
	ends "$name" 'cannot be had' 'ending without it'
	stop_cluster
}

test_lost_master() {
	local name="SIGTERM ends QEMU when the master is gone"
	wanted "$name" || return 0
	start_cluster
	start_guest "wvm.seconds=60" $tcg -smp 2 -m 512
	await_lines "$work/console" 'guest +[0-9]+ proc' 60
	end_process "${masters[0]}"
	await_lines "$work/err" 'master.*gone' 30 || fail "$name" "it is not reported" "$work/err"
	kill -TERM "$qemu_pid"
	ends "$name" 'master.*gone'
	stop_cluster
}

test_dead_master() {
	wanted "a dead master's ring file" || return 0
	start_cluster
	end_process "${masters[0]}"
	refuses "a dead master's ring file" 'master' $tcg -m 256
	stop_cluster
}

[ -x "$QEMU" ] || {
	echo "no QEMU at $QEMU: run make qemu, or set WVM_QEMU" >&2
	exit 2
}
test_options
test_guest
if [ -x "$MASTER" ]; then
	start_cluster
	test_memory_options
	test_hotplug
	test_kvm
	test_cluster_guest
	test_reset
	stop_cluster
	test_numa
	test_stale
	test_lost_home
	test_lost_main_loop
	test_lost_master
	test_dead_master
else
	fail "tests with a cluster" "no master at $MASTER: run make, or set WVM_MASTER"
fi
echo "$passed passed, $failed failed"
[ $failed = 0 ]
