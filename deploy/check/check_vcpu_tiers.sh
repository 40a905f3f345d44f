#!/bin/bash
# A processor on a host that the guest's own reaches by gateways only: two hosts, each behind its sidecar, in two
# networks that a pod's gateway joins; daemons are started by wvm-host. The bare guest of qemu-accel/check runs its
# tests there, and then counts while the gateway between is killed and started again, and its slave after it.
# Needs root, and QEMU built (make qemu). Half a minute.
# Environment: BUILD (build); CC; NET_KEEP=1 keeps the logs, and their folder is named.
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
cd -- "$here/../.." || exit 1
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$here/lib.sh"
BUILD=$(realpath -m -- "${BUILD:-build}")
export BUILD
WVM_BIN=$BUILD/bin
# shellcheck source=roles/check/net.sh
. roles/check/net.sh
# shellcheck source=deploy/check/hosts.sh
. "$here/hosts.sh"

QEMU=$BUILD/qemu/qemu-system-x86_64
OWNER=1 LENT=2 POD=3 # hosts; node I of the topology is host I + 1
OUTAGE=1             # seconds without a gateway between; a run is waited for up to 5 s
LINES_EACH=18        # of smp.c, for each processor but the first

make_networks() {
	net_up_apart 3 || return 1
	net_on_exit remove_files
	net_on_exit stop_daemons
	net_link left "$OWNER" 192.168.10.10/24 && net_link left "$POD" 192.168.10.1/24 &&
		net_link right "$LENT" 192.168.20.10/24 && net_link right "$POD" 192.168.20.1/24
}

# configure HOST UPSTREAM [LINE...]: its host.conf.
configure() {
	printf '%s\n' "GATEWAY=$WVM_BIN/wavevm_gateway" "GATEWAY_ROUTES=routes.$1" "GATEWAY_UPSTREAM=$2" \
		"RUN_DIR=run.$1" "LOG_DIR=log.$1" START_TIMEOUT=30 STOP_TIMEOUT=10 "${@:3}" >"$NET_DIR/host.$1"
}

# node HOST GATEWAY [LINE...]: that of a node.
node() {
	local id=$(($1 - 1))
	printf 'ROUTE %s 1 127.0.0.1 9000\n' "$id" >"$NET_DIR/routes.$1"
	configure "$1" "$2 8000" TOPOLOGY=topology "PHYS_ID=$id" RAM_MB=512 "MASTER=$WVM_BIN/wavevm_node_master" \
		"WVM_RING_PATH=$NET_DIR/ring.$id" "WVM_SHM_FILE=/dev/shm/$NET_TAG-$id" \
		"MASTER_OPTIONS=--state-dir $NET_DIR/state.$id" "${@:3}"
}

start_daemons() {
	local host starting=()
	printf 'NODE %s 127.0.0.1 8000 2 4\n' 0 1 >"$NET_DIR/topology"
	printf 'ROUTE %s 1 192.168.%s.10 8000\n' 0 10 1 20 >"$NET_DIR/routes.$POD"
	configure "$POD" '0.0.0.0 0'
	node "$OWNER" 192.168.10.1
	node "$LENT" 192.168.20.1 "SLAVE=$WVM_BIN/wavevm_node_slave" SLAVE_CORES=1 "SLAVE_OPTIONS=--no-kvm --qemu $QEMU"
	run on "$POD" start
	[ "$status" = 0 ] || give_up "the gateway between does not start: $output"
	for host in "$OWNER" "$LENT"; do
		on "$host" start >"$scratch/start.$host" 2>&1 &
		starting[host]=$!
	done
	for host in "${!starting[@]}"; do
		wait "${starting[host]}" || give_up "host $host does not start" "$scratch/start.$host"
	done
}

build_guest() {
	local from=qemu-accel/check
	${CC:-cc} -m32 -ffreestanding -fno-pie -fno-stack-protector -mno-sse -O1 "${@:2}" -c -o "$scratch/smp.o" $from/smp.c &&
		${CC:-cc} -m32 -c -o "$scratch/start.o" $from/smp_start.S &&
		ld -m elf_i386 -Ttext 0x100000 -e _start -o "$scratch/$1" "$scratch/start.o" "$scratch/smp.o"
}

# start_guest KERNEL: with one processor here and one on the other host.
start_guest() {
	: >"$scratch/console"
	WVM_RING_PATH=$NET_DIR/ring.0 net_start "$OWNER" "$1" "$QEMU" -machine q35 -nodefaults -display none -m 64 -smp 2 \
		-no-reboot -accel wavevm,backend=tcg,split=1,remote=1 -kernel "$scratch/$1" -serial "file:$scratch/console"
	guest=$NET_PID
}

beats() { grep -c '^beat 1' "$scratch/console"; }

# beats_on SECONDS: the processor behind the gateways counts on within so long.
beats_on() {
	local from i
	from=$(beats)
	for ((i = 0; i < $1 * 10; i++)); do
		[ "$(beats)" -lt $((from + 2)) ] || return 0
		sleep 0.1
	done
	output="$(beats) beats; $(tail -n 1 "$NET_DIR/beat.log")"
	return 1
}

guest_passes_its_tests() {
	local i
	start_guest smp
	for ((i = 0; i < 1200; i++)); do
		net_running "$guest" || break
		! grep -q 'VM is stopped' "$NET_DIR/smp.log" || break
		sleep 0.1
	done
	net_stop "$guest"
	status=$?
	output=$(cat "$scratch/console" "$NET_DIR/smp.log" | tail -n 25)
	holds 'a guest ends by itself' test "$status" = 0
	holds 'all tests of its processor there went right' \
		test "$(grep -c '^ok ' "$scratch/console")" = "$LINES_EACH" -a "$(grep -c FAILED "$scratch/console")" = 0
}

forwarded() {
	net_exec "$POD" "$WVM_BIN/wvm_ctl" --port 9002 --json stats |
		python3 -c 'import json, sys; print(json.load(sys.stdin)["gateway"]["forwarded"])'
}

gateway_is_killed() {
	local pid before
	start_guest beat
	holds 'another one comes up' beats_on 60
	before=$(forwarded)
	beats_on 30
	output="$before messages before, then $(forwarded)"
	holds 'its processor is served by the gateway between' test "$(forwarded)" -gt "$before"
	pid=$(head -n 1 "$NET_DIR/run.$POD/gateway.pid") && kill -KILL "$pid"
	while net_running "$pid"; do sleep 0.01; done
	sleep "$OUTAGE"
	run on "$POD" start gateway
	expect 'which is killed and started again' 0 'gateway is ready'
	holds 'and the processor goes on' beats_on 30
	holds 'as does the guest' net_running "$guest"
	printf 'proof: tiers: a processor behind gateways outlives one that is gone for %s s\n' "$OUTAGE"
}

# What it had of the processor is gone with it: nobody may run that again.
slave_is_killed() {
	local pid
	pid=$(head -n 1 "$NET_DIR/run.$LENT/slave.pid") && kill -KILL "$pid"
	net_wait_for 'processor 1 is lost: .*the VM is stopped' "$NET_DIR/beat.log" 20
	status=$?
	output=$(tail -n 2 "$NET_DIR/beat.log")
	expect 'without its slave the guest stops, and says why' 0 'node 1'
	net_stop "$guest"
}

if [ "$EUID" -ne 0 ]; then
	printf 'SKIPPED: namespaces and userfaultfd need root\n'
	exit 0
fi
for file in "$QEMU" "$WVM_BIN/wavevm_node_slave"; do
	[ -e "$file" ] || give_up "$file is missing: make all qemu"
done
{ build_guest smp && build_guest beat -DBEAT; } || give_up 'the guest is not built'
make_networks || give_up 'no networks'
start_daemons
guest_passes_its_tests
gateway_is_killed
slave_is_killed
finish
