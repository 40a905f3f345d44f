#!/bin/bash
# Tests of vCPUs that run on other nodes: a bare guest (smp.c), and what an operator does to it.
#   qemu-accel/check/remote.sh [PATTERN]     only tests whose name matches the extended regular expression
# Three nodes on the loopback with 2, 4 and 2 cores, slaves on nodes 1 and 2. Prints a line per test and "N passed, N failed".
# Environment: WVM_QEMU, WVM_MASTER, WVM_SLAVE, WVM_CTL: the programs (default: in build/); BUILD; CC.
# shellcheck disable=SC2086 # QEMU options are kept as words
set -uo pipefail
export LC_ALL=C

here=$(cd -P "$(dirname "$0")" && pwd)
root=$(dirname "$(dirname "$here")")
BUILD=${BUILD:-$root/build}
case $BUILD in /*) ;; *) BUILD=$PWD/$BUILD ;; esac
QEMU=${WVM_QEMU:-$BUILD/qemu/qemu-system-x86_64}
MASTER=${WVM_MASTER:-$BUILD/bin/wavevm_node_master}
SLAVE=${WVM_SLAVE:-$BUILD/bin/wavevm_node_slave}
CTL=${WVM_CTL:-$BUILD/bin/wvm_ctl}
only=${1:-.}
work=$(mktemp -d)
shm=/dev/shm/wvm-remote-check-$$
port=$((18000 + $$ % 700))
passed=0 failed=0
masters=() slaves=() qemu_pid=''
unset WVM_RING_PATH WVM_ENV_SOCK_PATH WVM_INSTANCE_ID

# shellcheck source=qemu-accel/check/lib.sh
. "$here/lib.sh"

# shellcheck disable=SC2317 # called by the trap
clean_up() {
	local pid
	for pid in $qemu_pid "${slaves[@]}" "${masters[@]}"; do
		end_process "$pid"
	done
	rm -rf "$work" "$shm"*
}
trap clean_up EXIT
trap 'exit 130' INT TERM HUP

# What the counters of other hosts would be: far from the owner's, and as fast and slow as quartzes are.
test_ticks=('' 77000000000000:50 0:-50)

start_slave() {
	WVM_TEST_TICKS=${test_ticks[$1]} "$SLAVE" $((port + 20 + $1)) 2 512 "$1" $((port + 10 + $1)) --no-kvm --ring-path "$work/ring.$1" \
		--qemu "$QEMU" >"$work/slave.$1" 2>&1 &
	slaves[$1]=$!
	await_lines "$work/slave.$1" 'ready' 30 || fail "slave $1 starts" "it does not" "$work/slave.$1"
}

end_slave() {
	[ -z "${slaves[$1]}" ] || end_process "${slaves[$1]}"
	slaves[$1]=''
}

start_cluster() {
	local id cores=(2 4 2)
	for id in 0 1 2; do
		echo "NODE $id 127.0.0.1 $((port + id)) ${cores[id]} 4 $((port + 10 + id))"
	done >"$work/topology"
	for id in 0 1 2; do
		WVM_RING_PATH=$work/ring.$id WVM_SHM_FILE=$shm.$id "$MASTER" 512 $((port + id)) "$work/topology" \
			"$id" $((port + 10 + id)) $((port + 20 + id)) --fresh --state-dir "$work/state.$id" \
			>"$work/master.$id" 2>&1 &
		masters[id]=$!
	done
	for id in 0 1 2; do
		await_lines "$work/master.$id" 'ready, node' 30 && continue
		fail "master $id starts" "it does not get ready" "$work/master.$id"
		exit 1
	done
	export WVM_RING_PATH=$work/ring.0
}

# Without slaves, since most of these are refused before one is asked.
refuses() {
	local name=$1 regex=$2 status
	shift 2
	wanted "$name" || return 0
	timeout -k 5 60 "$QEMU" -machine q35 -nodefaults -nographic -m 64 "$@" >"$work/out" 2>"$work/err" </dev/null
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

test_options() {
	local a='-accel wavevm,backend=tcg'
	refuses "split without a slave" 'leaves 1 of the vCPUs .* of the 3 .* none has a slave.*start' $a,split=1 -smp 2
	refuses "nodes without split" 'remote=1 needs split=N' $a,remote=1 -smp 2
	refuses "a node that is no number" "'x' is not the id of a node" $a,split=1,remote=1:x -smp 2
	refuses "no vCPU of its own" 'split=0' $a,split=0,remote=1 -smp 2
	refuses "one thread for all vCPUs" 'leave thread=single out' $a,split=1,remote=1,thread=single -smp 2
	refuses "several sockets" 'cores of one socket' $a,split=1,remote=1 -smp 2,sockets=2
	refuses "KVM" 'split= needs backend=tcg' -accel wavevm,backend=kvm,split=1,remote=1 -smp 2
	refuses "a node that is not there" 'no node 7' $a,split=1,remote=7 -smp 2
	refuses "a node without a slave" 'slave of node 1 does not answer' $a,split=1,remote=1 -smp 2
	refuses "a slave's machine by hand" 'wavevm_node_slave' -machine wavevm-slave $a
}

# --- the bare guest -----------------------------------------------------------------------------

build_guest() {
	local name=$1
	shift
	${CC:-cc} -m32 -ffreestanding -fno-pie -fno-stack-protector -mno-sse -O1 -Wall -Wextra -Werror "$@" \
		-c -o "$work/smp.o" "$here/smp.c" &&
		${CC:-cc} -m32 -c -o "$work/start.o" "$here/smp_start.S" &&
		ld -m elf_i386 -Ttext 0x100000 -e _start -o "$work/$name" "$work/start.o" "$work/smp.o" || exit 1
}

# start_guest KERNEL VCPUS ACCEL [OPTIONS]: its console in $work/console, its monitor at descriptor 8.
start_guest() {
	rm -f "$work/monitor"
	: >"$work/console"
	: >"$work/out"
	mkfifo "$work/monitor"
	"$QEMU" -machine q35 -nodefaults -display none -m 64 -smp "$2" -accel "$3" ${1:+-kernel $work/$1} \
		-serial "file:$work/console" -monitor stdio ${4:-} >"$work/out" 2>"$work/err" <"$work/monitor" &
	qemu_pid=$!
	exec 8>"$work/monitor"
}

# Waits for its end, $1 seconds at most; its exit status in $status. With unless_lost as $2: no
# longer than until it says that a vCPU is lost.
await_guest() {
	local n
	for ((n = 0; n < $1 * 10; n++)); do
		kill -0 "$qemu_pid" 2>/dev/null || break
		[ "${2:-}" != unless_lost ] || ! grep -q 'VM is stopped' "$work/err" || break
		sleep 0.1
	done
	kill -KILL "$qemu_pid" 2>/dev/null
	wait "$qemu_pid" 2>/dev/null
	status=$?
	qemu_pid=''
	exec 8>&-
}

LINES_EACH=18 # of smp.c, for each vCPU but the first

# all NAME ACCEL VCPUS: every line of the guest says "ok", for each vCPU but the first.
all() {
	local name=$1 status
	wanted "$name" || return 0
	start_guest smp "$3" "$2" -no-reboot
	await_guest 240 unless_lost
	if [ "$status" != 0 ] || ! grep -q '^end' "$work/console"; then
		cat "$work/console" "$work/err" >"$work/both"
		fail "$name" "status $status, and the guest did not come to its end" "$work/both"
	elif [ "$(grep -c '^ok ' "$work/console")" != $((LINES_EACH * ($3 - 1))) ] || grep -q FAILED "$work/console"; then
		fail "$name" "not everything went right" "$work/console"
	else
		pass "$name"
	fi
}

beats() { grep -c '^beat 2' "$work/console"; }

# Both remote vCPUs count on within 30 s.
go_on() {
	await_lines "$work/console" '^beat 2' 30 $(($(beats) + 2))
}

# What the operator does to vCPUs that never come back by themselves.
test_monitor() {
	local name="stop, look, go on" before status ip
	wanted "$name" || return 0
	start_guest beat 3 wavevm,backend=tcg,split=1,remote=1:2
	go_on || fail "$name" "the guest does not come up" "$work/err"
	echo stop >&8
	sleep 2
	before=$(wc -l <"$work/console")
	echo 'info registers -a' >&8
	sleep 2
	[ "$(wc -l <"$work/console")" = "$before" ] || fail "$name" "it goes on when stopped" "$work/console"
	# In the guest's own code, and not the same as after a reset.
	ip=$(grep -ac '^EIP=0010[0-9a-f]* .*CPL=0' "$work/out")
	[ "$ip" = 3 ] || fail "$name" "not all vCPUs show where they are" "$work/out"
	echo cont >&8
	go_on || fail "$name" "it does not go on" "$work/err"
	echo quit >&8
	await_guest 20
	[ "$status" = 0 ] && [ ! -s "$work/err" ] && pass "$name" || fail "$name" "status $status" "$work/err"
}

# The firmware starts all vCPUs and says so at each of its starts.
test_reset() {
	local name="a reset starts remote vCPUs anew" status
	wanted "$name" || return 0
	: >"$work/firmware"
	start_guest '' 3 wavevm,backend=tcg,split=1,remote=1:2 \
		"-chardev file,id=firmware,path=$work/firmware -device isa-debugcon,chardev=firmware,iobase=0x402"
	await_lines "$work/firmware" 'Found 3 cpu' 60 || fail "$name" "the first time" "$work/firmware"
	echo system_reset >&8
	await_lines "$work/firmware" 'Found 3 cpu' 60 2 || fail "$name" "the second time" "$work/firmware"
	echo quit >&8
	await_guest 20
	[ "$status" = 0 ] && [ ! -s "$work/err" ] && pass "$name" || fail "$name" "status $status" "$work/err"
}

ctl() { "$CTL" --port $((port + 10)) "$@"; }

# figure VCPU COLUMN: of wvm_ctl vcpu; empty without that vCPU.
figure() {
	ctl vcpu 2>/dev/null | awk -v vcpu="$1" -v column="$2" '
		NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i }
		NR > 1 && $2 == vcpu { print $at[column] }'
}

# A vCPU goes to and fro between two nodes while the guest computes on it, to its right end.
test_moves() {
	local name="a vCPU moves between nodes as it computes" status to=2 moves=0 before after on=(0 0 0)
	wanted "$name" || return 0
	start_guest smp 2 wavevm,backend=tcg,split=1,remote=1 -no-reboot
	await_lines "$work/console" '^begin' 60 || fail "$name" "the guest does not come up" "$work/err"
	while kill -0 "$qemu_pid" 2>/dev/null; do
		if ctl vcpu move 1 $to >"$work/move" 2>&1; then
			moves=$((moves + 1))
			before=$(figure 1 runs)
			sleep 0.05
			after=$(figure 1 runs)
			[ "$(figure 1 node)" = $to ] && [ "${after:-0}" -gt "${before:-0}" ] && on[to]=$((on[to] + 1))
			to=$((3 - to))
		else
			grep -Eq 'no vCPU 1|has not answered' "$work/move" || cat "$work/move" >>"$work/moves"
		fi
	done
	await_guest 240 unless_lost
	if [ "$status" != 0 ] || ! grep -q '^end' "$work/console" || [ -s "$work/err" ] || [ -s "$work/moves" ]; then
		cat "$work/console" "$work/err" "$work/moves" >"$work/both" 2>/dev/null
		fail "$name" "status $status after $moves moves" "$work/both"
	elif [ "$(grep -c '^ok ' "$work/console")" != $LINES_EACH ] || grep -q FAILED "$work/console"; then
		fail "$name" "not everything went right after $moves moves" "$work/console"
	elif [ "${on[1]}" -lt 3 ] || [ "${on[2]}" -lt 3 ]; then
		fail "$name" "of $moves moves, it ran on node 1 after ${on[1]}, on node 2 after ${on[2]}"
	else
		pass "$name ($moves moves)"
	fi
}

refuses_move() {
	if ctl vcpu move "$1" "$2" >"$work/move" 2>&1 || ! grep -q "$3" "$work/move"; then
		fail "$name" "move $1 $2 is not refused by '$3'" "$work/move"
		return 1
	fi
}

moves() {
	ctl vcpu move "$1" "$2" >"$work/move" 2>&1 && [ "$(figure "$1" node)" = "$2" ] && return 0
	fail "$name" "move $1 $2" "$work/move"
	return 1
}

# Also of vCPUs that never come back by themselves, and while the VM is stopped; and what cannot be.
test_orders() {
	local name="an operator's orders" status n had=$failed
	wanted "$name" || return 0
	start_guest beat 3 wavevm,backend=tcg,split=1,remote=1:2
	go_on || fail "$name" "the guest does not come up" "$work/err"
	for n in 2 1 2 1 2; do
		moves 1 $n && go_on || break
	done
	refuses_move 0 1 'runs in its QEMU itself'
	refuses_move 5 1 'no vCPU 5'
	refuses_move 1 0 'no slave answers there'
	refuses_move 1 9 'no node 9'
	go_on || fail "$name" "it does not go on where it was" "$work/err"
	echo stop >&8
	await_lines "$work/out" 'stop' 10
	moves 1 1
	echo cont >&8
	go_on || fail "$name" "it does not go on when moved while stopped" "$work/err"
	[ "$(figure 1 moves)" = 6 ] && [ "$(figure 2 moves)" = 0 ] || fail "$name" "$(ctl vcpu)"
	echo quit >&8
	await_guest 20
	[ "$failed" = "$had" ] || return 0
	[ "$status" = 0 ] && [ ! -s "$work/err" ] && pass "$name" || fail "$name" "status $status" "$work/err"
}

# vCPU 2 is there, and QEMU ends well: the end of a test with its name, and in $had what had failed before.
end_on_node_1() {
	[ "$(figure 2 node)" = 1 ] || fail "$name" "it is not on node 1" "$work/err"
	echo quit >&8
	await_guest 20
	[ "$failed" = "$had" ] || return 0
	[ "$status" = 0 ] && pass "$name" || fail "$name" "status $status" "$work/err"
}

# With the nodes given, or dealt: it is the same two.
# Neither when the VM goes on after a stop, nor when a vCPU comes to a node where an engine has to start first.
test_leaps() {
	local name="time does not leap" status had=$failed
	wanted "$name" || return 0
	start_guest beat 3 wavevm,backend=tcg,split=1,remote=1
	go_on || fail "$name" "the guest does not come up" "$work/err"
	echo stop >&8
	sleep 3
	echo cont >&8
	go_on || fail "$name" "it does not go on" "$work/err"
	moves 1 2 && go_on && moves 1 1 && go_on
	! grep -q leap "$work/console" || fail "$name" "it does" "$work/console"
	echo quit >&8
	await_guest 20
	[ "$failed" = "$had" ] || return 0
	[ "$status" = 0 ] && [ ! -s "$work/err" ] && pass "$name" || fail "$name" "status $status" "$work/err"
}

test_refused() {
	local name="a vCPU that is refused goes to another node${1+ of those dealt}" status had=$failed
	wanted "$name" || return 0
	start_guest beat 3 wavevm,backend=tcg,split=1${1-,remote=1:2}
	go_on || fail "$name" "the guest does not come up" "$work/err"
	echo stop >&8
	await_lines "$work/out" 'stop' 10
	sleep 1
	# What runs it there ends while it runs nothing, so nothing is lost.
	kill -KILL "$(sed -n 's/.*its engine is process \([0-9]*\).*/\1/p' "$work/slave.2" | tail -n 1)"
	await_lines "$work/slave.2" 'was killed by signal 9' 20 || fail "$name" "the engine does not end"
	echo cont >&8
	go_on || fail "$name" "it does not go on" "$work/err"
	[ "$(wc -l <"$work/err")" = 1 ] &&
		grep -q 'vCPU 2 was refused by the slave of node 2, and goes on on node 1' "$work/err" ||
		fail "$name" "it is not said" "$work/err"
	end_on_node_1
}

test_absent_slave() {
	local name="a vCPU whose slave is not there begins on another node" status had=$failed
	wanted "$name" || return 0
	end_slave 2
	start_guest beat 3 wavevm,backend=tcg,split=1,remote=1:2
	go_on || fail "$name" "the guest does not come up" "$work/err"
	grep -q 'vCPU 2 on node 2: .*does not answer.*; it goes to node 1' "$work/err" ||
		fail "$name" "it is not said" "$work/err"
	end_on_node_1
}

test_lost_slave() {
	local name="a slave that dies stops the VM" status
	wanted "$name" || return 0
	start_guest beat 3 wavevm,backend=tcg,split=1,remote=1:2
	go_on || fail "$name" "the guest does not come up" "$work/err"
	end_slave 2
	await_lines "$work/err" 'vCPU 2 on node 2: .*lost.*the VM is stopped' 30 ||
		fail "$name" "it is not said" "$work/err"
	echo 'info status' >&8
	await_lines "$work/out" 'paused \(internal-error\)' 10 || fail "$name" "it is not stopped" "$work/out"
	echo quit >&8
	await_guest 20
	[ "$status" = 0 ] && pass "$name" || fail "$name" "status $status" "$work/err"
}

# dealt NAME VCPUS NODES REGEX: without remote=, and whose every vCPU runs; NODES are those of the
# second and following ones in turn, REGEX what is said of it (nothing: '').
dealt() {
	local name=$1 vcpus=$2 i nodes='' status had=$failed
	wanted "$name" || return 0
	start_guest beat "$vcpus" wavevm,backend=tcg,split=1
	await_lines "$work/console" "^beat $((vcpus - 1))" 60 || fail "$name" "not all vCPUs run" "$work/console"
	for ((i = 1; i < vcpus; i++)); do
		nodes+=" $(figure $i node)"
	done
	[ "$nodes" = " $3" ] || fail "$name" "they are on nodes$nodes, not $3" "$work/err"
	[ "$(wc -l <"$work/err")" = "$(wc -w <<<"${4:+one}")" ] && grep -Eq "$4" <(cat "$work/err"; echo) ||
		fail "$name" "not said as it should be" "$work/err"
	echo quit >&8
	await_guest 20
	[ "$failed" = "$had" ] || return 0
	[ "$status" = 0 ] && pass "$name" || fail "$name" "status $status" "$work/err"
}

test_dealt() {
	dealt "dealt by the nodes' cores" 5 "1 2 1 1" ''
	wanted "dealt to this node, too, where it has a slave" && {
		start_slave 0
		dealt "dealt to this node, too, where it has a slave" 8 "1 2 1 1 2 0 1" ''
		end_slave 0
	}
	wanted "dealt without a node that has no slave" && {
		end_slave 2
		dealt "dealt without a node that has no slave" 4 "1 1 1" 'node 2 gets no vCPU: no slave answers there'
		start_slave 2
	}
}

for program in "$QEMU" "$MASTER" "$SLAVE" "$CTL"; do
	[ -x "$program" ] || {
		echo "no $program: run make and make qemu" >&2
		exit 2
	}
done
build_guest smp
build_guest beat -DBEAT
start_cluster
test_options
start_slave 1
start_slave 2
all "the bare guest, all vCPUs here" wavevm,backend=tcg 3
all "the bare guest, one vCPU elsewhere" wavevm,backend=tcg,split=1,remote=1 2
all "the bare guest, two on two nodes" wavevm,backend=tcg,split=1,remote=1:2 3
all "the bare guest, two on one node" wavevm,backend=tcg,split=1,remote=1 3
test_dealt
test_monitor
test_reset
test_moves
test_orders
test_leaps
test_refused ''
test_refused
test_lost_slave
test_absent_slave
echo "$passed passed, $failed failed"
[ $failed = 0 ]
