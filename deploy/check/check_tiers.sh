#!/bin/bash
# A guest boots and verifies its memory through three tiers of gateways: deploy/topologies/federation-2x2.conf
# with its ROUTE files, and a spare host behind the others in pod b; daemons are started on each host by wvm-host. Two pods
# of hosts in networks that reach each other only by the gateways of the pods and the core gateway. Under load the core is
# killed and replaced at another address, the pods' gateways are killed and started again, and the core moves back in
# peace; then the spare node joins, and one of pod a drains and is switched off.
# Needs root, and QEMU and the guest built (make qemu guest). About two minutes.
# Environment: BUILD (build); NET_KEEP=1 keeps the logs, and their folder is named.
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
TOPOLOGIES=$PWD/deploy/topologies
MEM=160      # MiB of the guest's RAM
VM=2095      # whose units are dealt evenly to all nodes that home memory, also after each move
STRESS=110   # seconds of the guest's stress test, within which all harm is done
VISITS=250   # pages per second that each program on nodes 1 to 3 takes from the guest
OUTAGE=1     # seconds that nobody does anything about the core that was killed
DEADLINE=5000 # ms that an access waits for a page; shared/PROTOCOL.md
CAME=1000    # pages that have to come to the node that joins; how many its units have is the guest's affair
ANOTHER=500  # messages by which a gateway that was replaced shows that it is in use

# Hosts: node I of the topology is host I + 1. Node 4 is spare at first; the host of node 1 leaves.
JOINER=4 LEAVER=1
POD_A=6 POD_B=7 CORE=8 CORE_2=9
CORE_IP=10.0.0.10 CORE_2_IP=10.0.0.20
visitors=() guest='' leaver=''

make_networks() {
	net_up_apart 9 || return 1
	net_on_exit remove_files
	net_on_exit stop_daemons
	net_link pod-a 1 192.168.10.10/24 && net_link pod-a 2 192.168.10.11/24 &&
		net_link pod-a "$POD_A" 192.168.10.1/24 || return 1
	net_link pod-b 3 192.168.20.10/24 && net_link pod-b 4 192.168.20.11/24 &&
		net_link pod-b 5 192.168.20.12/24 && net_link pod-b "$POD_B" 192.168.20.1/24 || return 1
	net_link core "$POD_A" 10.0.0.1/24 && net_link core "$POD_B" 10.0.0.2/24 &&
		net_link core "$CORE" "$CORE_IP/24" && net_link core "$CORE_2" "$CORE_2_IP/24"
}

# Behind the others in pod b, so that they keep their vnodes: what an operator adds to the files.
add_spare() {
	cp -r -- "$TOPOLOGIES/federation-2x2.conf" "$TOPOLOGIES/routes" "$NET_DIR" || return 1
	printf '%s\n' 'NODE 4 127.0.0.1 8000 4 16' 'SPARE 4' >>"$NET_DIR/federation-2x2.conf"
	printf '%s\n' 'ROUTE 16 4 127.0.0.1 9000' >"$NET_DIR/routes/leaf-4.routes"
	printf '%s\n' 'ROUTE 16 4 192.168.20.12 8000' >>"$NET_DIR/routes/federation-pod-b.routes"
	printf '%s\n' 'ROUTE 16 4 10.0.0.2 8000' >>"$NET_DIR/routes/federation-core.routes"
}

# configure HOST ROUTES UPSTREAM [LINE...]: its host.conf.
configure() {
	{
		printf '%s\n' "GATEWAY=$WVM_BIN/wavevm_gateway" "GATEWAY_ROUTES=routes/$2.routes" \
			"GATEWAY_UPSTREAM=$3" "RUN_DIR=run.$1" "LOG_DIR=log.$1" START_TIMEOUT=30 STOP_TIMEOUT=10
		[ $# -lt 4 ] || printf '%s\n' "${@:4}"
	} >"$NET_DIR/host.$1"
}

start_gateway() {
	run on "$1" start gateway
	[ "$status" = 0 ] || give_up "no gateway on host $1: $output"
}

# From the top, as the topology's comment has it. A master is ready when all are. That of the node that
# leaves is run as systemd does, so that the status that it ends with is seen.
start_daemons() {
	local i pod starting=()
	configure "$CORE" federation-core '0.0.0.0 0'
	configure "$CORE_2" federation-core '0.0.0.0 0'
	configure "$POD_A" federation-pod-a "$CORE_IP 8000"
	configure "$POD_B" federation-pod-b "$CORE_IP 8000"
	for i in "$CORE" "$POD_A" "$POD_B"; do
		start_gateway "$i"
	done
	for i in 0 1 2 3 4; do
		pod=192.168.10.1
		[ "$i" -lt 2 ] || pod=192.168.20.1
		configure $((i + 1)) "leaf-$i" "$pod 8000" TOPOLOGY=federation-2x2.conf "PHYS_ID=$i" "RAM_MB=$((MEM * 2))" \
			"MASTER=$WVM_BIN/wavevm_node_master" "WVM_RING_PATH=$NET_DIR/ring.$i" \
			"WVM_SHM_FILE=/dev/shm/$NET_TAG-$i" \
			"MASTER_OPTIONS=--vm $VM:${MEM}M --state-dir $NET_DIR/state.$i"
		if [ "$i" = "$LEAVER" ]; then
			start_gateway $((i + 1))
			net_start $((i + 1)) leaver deploy/wvm-host run master -c "$NET_DIR/host.$((i + 1))"
			leaver=$NET_PID
			continue
		fi
		on $((i + 1)) start >"$scratch/start.$i" 2>&1 &
		starting[i]=$!
	done
	for i in "${!starting[@]}"; do
		wait "${starting[i]}" || give_up "node $i does not start" "$scratch/start.$i"
	done
	net_wait_for ': ready,' "$NET_DIR/leaver.log" 30 || give_up "node $LEAVER does not start" "$NET_DIR/leaver.log"
}

pid_of() { head -n 1 "$NET_DIR/run.$1/gateway.pid"; }

# kill_gateway HOST: as its host's kernel would; nobody is told.
kill_gateway() {
	local pid
	pid=$(pid_of "$1") && kill -KILL "$pid" || return 1
	while net_running "$pid"; do sleep 0.01; done
}

start_guest() {
	local i
	for i in 1 2 3; do
		net_start $((i + 1)) "visitor-$i" "$WVM_BIN/wvm_visit" --vm "$VM" --rate "$VISITS" \
			--seed "$i" "$NET_DIR/ring.$i"
		visitors[i]=$NET_PID
		net_wait_for '^ready' "$NET_DIR/visitor-$i.log" 30 ||
			give_up "no program on node $i" "$NET_DIR/visitor-$i.log"
	done
	WVM_RING_PATH=$NET_DIR/ring.0 net_start 1 guest deploy/guest/run.sh "$QEMU" \
		"wvm.seconds=$STRESS" -accel "wavevm,vm-id=$VM,backend=tcg" -m "$MEM" -smp 2
	guest=$NET_PID
	net_wait_for '^random ' "$NET_DIR/guest.log" 60 ||
		give_up 'the guest does not come to its stress test' "$NET_DIR/guest.log"
}

# Whether the guest is within its stress test.
under_load() { net_running "$guest" && ! grep -qa '^stress ' "$NET_DIR/guest.log"; }

# figures HOST CTRL_PORT COMMAND PATH...: of wvm_ctl --json, in one line.
figures() {
	local host=$1 port=$2 command=$3
	shift 3
	net_exec "$host" "$WVM_BIN/wvm_ctl" --port "$port" --json "$command" >"$scratch/json" || return 1
	python3 - "$scratch/json" "$@" <<-'PY'
		import functools, json, sys
		o = json.load(open(sys.argv[1]))
		print(*(functools.reduce(lambda v, k: v[int(k) if isinstance(v, list) else k], path.split('.'), o) for path in sys.argv[2:]))
	PY
}

# Requests that the guest's master has sent again.
retried() { figures 1 9001 stats core.requests_retried; }

forwarded() { figures "$1" 9002 stats gateway.forwarded; }

# passes_on HOST: its gateway passes on so many messages more, within 10 s.
passes_on() {
	local from now i
	from=$(forwarded "$1") || return 1
	for ((i = 0; i < 100; i++)); do
		now=$(forwarded "$1") || return 1
		[ $((now - from)) -lt "$ANOTHER" ] || return 0
		sleep 0.1
	done
	output="$from, 10 s later $now messages"
	return 1
}

unreachable() { ! net_exec "$1" ip route get "$2" >/dev/null 2>&1; }

now_ms() { date +%s%3N; }

# ---- the pods reach each other by the gateways alone ------------------------------------------

# reaches FROM TO IP: a datagram of host FROM comes to host TO.
reaches() {
	local pid
	rm -f -- "$NET_DIR/listener.log" # an earlier one's says that it listens
	net_start "$2" listener python3 -c 'import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("0.0.0.0", 7000))
s.settimeout(2)
print("listens", flush=True)
s.recv(16)'
	pid=$NET_PID
	net_wait_for '^listens' "$NET_DIR/listener.log" 10 || return 1
	net_exec "$1" bash -c "echo hello >/dev/udp/$3/7000"
	wait "$pid" 2>/dev/null
	status=$?
	net_forget "$pid"
	return "$status"
}

reaches_not() { ! reaches "$@" && [ "$status" = 1 ]; }

check_networks() {
	local host
	for host in 1 2; do
		holds "no way from host $host to the other pod" unreachable "$host" 192.168.20.10
		holds "nor to the core" unreachable "$host" "$CORE_IP"
	done
	holds 'no way back either' unreachable 3 192.168.10.10
	holds 'a host reaches the gateway of its pod' reaches 1 "$POD_A" 192.168.10.1
	holds 'which reaches that of the other pod' reaches "$POD_A" "$POD_B" 10.0.0.2
	# With a route by it, as somebody would have who takes it for a router.
	net_exec 1 ip route add default via 192.168.10.1
	net_exec "$POD_A" ip route add 192.168.20.0/24 via 10.0.0.2
	holds 'but neither is a router' reaches_not 1 3 192.168.20.10
	holds 'not towards its own hosts either' reaches_not "$POD_A" 3 192.168.20.10
	net_exec "$POD_A" ip route del 192.168.20.0/24
	net_exec 1 ip route del default
}

# homed_pages: pages that each node homes into homed, their sum into total.
homed_pages() {
	local i
	homed=() total=0
	for i in 0 1 2 3 4; do
		homed[i]=$(figures $((i + 1)) 9001 status pages_homed) || homed[i]=0
		total=$((total + homed[i]))
	done
	output="pages homed: ${homed[*]}"
}

# Units of the VM whose home a node is, as it says itself.
units_homed() {
	# shellcheck disable=SC2016 # it is the inner shell's
	net_exec $(($1 + 1)) bash -c 'for ((at = 0; at < $1; at += 2)); do
			"$2" --json --vm "$3" where $((at << 20))
		done' - "$MEM" "$WVM_BIN/wvm_ctl" "$VM" | grep -cE "\"home_node\": *$1\>"
}

# homes_its_part NODE HOMES: of the slices one in HOMES, and of the VM's memory, to within 10 %.
homes_its_part() {
	local slices units all=$((MEM / 2))
	slices=$(figures 1 9001 status "members.$1.slices")
	units=$(units_homed "$1")
	output="$slices of 4096 slices, $units of $all units"
	[ $((slices * $2)) -ge $((4096 - $2)) ] && [ $((slices * $2)) -le $((4096 + $2)) ] &&
		[ $((units * $2 * 10)) -ge $((all * 9)) ] && [ $((units * $2 * 10)) -le $((all * 11)) ]
}

homes_nothing() { [ "${homed[$1]}" = 0 ] && [ "$(figures 1 9001 status "members.$1.slices")" = 0 ]; }

check_homes() {
	local i
	homed_pages
	for i in 0 1 2 3; do
		holds "node $i homes an eighth of the guest's pages, or more" \
			test $((homed[i] * 8)) -ge "$total" -a "$total" -gt $((MEM * 64))
	done
	holds "node $JOINER, the spare one, homes none" homes_nothing "$JOINER"
	printf 'proof: tiers: pages homed on nodes 0 to 4: %s\n' "${homed[*]}"
}

check_tiers() {
	local host segments messages bytes lost
	for host in 1 3 "$POD_A" "$POD_B" "$CORE"; do
		read -r segments messages bytes lost < <(figures "$host" 9002 stats gateway.segments \
			gateway.forwarded gateway.bytes_out gateway.no_route)
		output="$segments segments, $messages forwarded, $bytes bytes, $lost without a route"
		holds "the gateway on host $host passes pages on" test "${bytes:-0}" -gt $((1000 * 4096))
		holds 'and knows a way for all that it gets' test "${lost:-1}" = 0
	done
	printf 'proof: tiers: by the core %s messages, %s MiB\n' "$messages" $((bytes >> 20))
}

# ---- harm ------------------------------------------------------------------------------

# The other pod's vnodes go by another core: one order by each of the tools.
order_core() {
	run net_exec "$POD_A" deploy/wvm_route_ctl.py 127.0.0.1 9002 8 "$1" 8000 --count 12
	expect "pod a takes the order to go by $1" 0 "vnode 8-19: by $1:8000"
	run net_exec "$POD_B" "$WVM_BIN/wvm_ctl" --port 9002 --count 8 route add 0 "$1" 8000
	expect "so does pod b" 0 'from vnode 0 on, 8 vnodes: replaced'
}

core_is_replaced_elsewhere() {
	local from took before after
	holds 'the guest is under load' under_load
	before=$(retried)
	from=$(now_ms)
	kill_gateway "$CORE"
	sleep "$OUTAGE"
	after=$(retried)
	output="$before requests repeated, $OUTAGE s later $after"
	holds 'without a core requests are repeated' test "$after" -gt "$before"
	start_gateway "$CORE_2"
	order_core "$CORE_2_IP"
	took=$(($(now_ms) - from))
	output="took $took ms"
	holds 'a core is replaced before an access has waited too long' test "$took" -lt "$DEADLINE"
	holds 'what goes between the pods goes by the new core' passes_on "$CORE_2"
	holds 'under the same load' under_load
	printf 'proof: tiers: core killed, replaced at another address after %s ms\n' "$took"
}

# An order is kept as long as the gateway that got it: by then host.conf has the core's address, too.
pod_is_restarted() {
	local host=$1 name=$2 from took
	sed -i "s/^GATEWAY_UPSTREAM=.*/GATEWAY_UPSTREAM=$CORE_2_IP 8000/" "$NET_DIR/host.$host"
	from=$(now_ms)
	kill_gateway "$host"
	start_gateway "$host"
	took=$(($(now_ms) - from))
	output="took $took ms"
	holds "$name is restarted in place in time" test "$took" -lt "$DEADLINE"
	holds 'and is used again' passes_on "$host"
	holds 'under the same load' under_load
	printf 'proof: tiers: %s killed, started again after %s ms\n' "$name" "$took"
}

core_moves_in_peace() {
	local before after
	start_gateway "$CORE"
	order_core "$CORE_IP"
	holds 'a core that was started beforehand takes over' passes_on "$CORE"
	before=$(forwarded "$CORE_2")
	holds 'which is seen' passes_on "$CORE"
	after=$(forwarded "$CORE_2")
	output="$before, then $after messages by the other one"
	holds 'by its counters: nothing goes by the other one any more' test "$before" = "$after"
	run on "$CORE_2" stop
	expect 'which ends' 0 'gateway is stopped'
	holds 'the guest is still under load' under_load
	printf 'proof: tiers: all harm was done within %s s\n' $((SECONDS - harm_began))
}

# ---- members come and go -----------------------------------------------------------------

# Of what the nodes say, the number of pages that came to them from former homes.
handed_over() {
	local i n sum=0
	for i in "$@"; do
		n=$(figures $((i + 1)) 9001 stats core.handover_pages) && sum=$((sum + n))
	done
	echo "$sum"
}

latencies() { net_exec 1 "$WVM_BIN/wvm_ctl" --json stats >"$scratch/$1"; }

# slowest BEFORE AFTER: of the guest's faults in between, by buckets of the histogram.
slowest() {
	python3 - "$scratch/$1" "$scratch/$2" <<-'PY'
		import json, sys
		a, b = (json.load(open(p)) for p in sys.argv[1:])
		top = max(i for k in ('latency_read', 'latency_write') for i in range(len(b[k])) if b[k][i] > a[k][i])
		print(f'{(1 << top) / 1000:g} ms')
	PY
}

# await_end PID SECONDS: its status into status; it is ended where it does not do so by itself.
await_end() {
	local i
	for ((i = 0; i < $2 * 10; i++)); do
		net_running "$1" || break
		sleep 0.1
	done
	net_stop "$1"
	status=$?
}

spare_joins() {
	local from took came
	latencies before-join
	from=$(now_ms)
	run net_exec 1 timeout 60 "$WVM_BIN/wvm_ctl" join "$JOINER"
	took=$(($(now_ms) - from))
	expect "node $JOINER joins, by an order given in the other pod" 0 "node $JOINER is ACTIVE"
	latencies after-join
	holds 'under load' under_load
	homed_pages
	holds 'it homes its part of the memory' homes_its_part "$JOINER" 5
	came=$(handed_over "$JOINER")
	output="$came pages came, homed ${homed[*]}"
	holds 'which has come to it' test "$came" -ge "$CAME" -a "${homed[JOINER]}" -ge "$came"
	printf 'proof: tiers: node %s joined within %s ms, %s pages came to it, of %s; homed now: %s; the slowest fault on node 0 took less than %s\n' \
		"$JOINER" "$took" "$came" "$total" "${homed[*]}" "$(slowest before-join after-join)"
}

check_visitor() {
	net_stop "${visitors[$1]}"
	status=$?
	output=$(tail -n 3 "$NET_DIR/visitor-$1.log")
	expect "the program on node $1 has had every page it asked for" 0 'pages, '
	unset "visitors[$1]"
}

# Its pages move while its program goes on; when that has ended it may be switched off.
node_drains() {
	local host=$((LEAVER + 1)) from took waited before drain
	before=$(handed_over 0 2 3 4)
	latencies before-drain
	from=$(now_ms)
	net_start "$host" drain timeout 90 "$WVM_BIN/wvm_ctl" drain "$LEAVER"
	drain=$NET_PID
	net_wait_for '1 program has to end there' "$NET_DIR/drain.log" 60
	waited=$(($(now_ms) - from))
	check_visitor "$LEAVER"
	await_end "$drain" 60
	took=$(($(now_ms) - from))
	output=$(<"$NET_DIR/drain.log")
	expect "node $LEAVER drains" 0 "node $LEAVER is OFFLINE"
	expect 'and has waited for its program to end' 0 '1 program has to end there'
	latencies after-drain
	homed_pages
	holds 'it homes nothing any more' homes_nothing "$LEAVER"
	net_stop "$leaver"
	status=$?
	output=$(tail -n 3 "$NET_DIR/leaver.log")
	expect 'it is switched off' 0 ''
	run on "$host" stop
	expect 'and so is its gateway' 0 'gateway is stopped'
	holds 'the guest goes on without it' passes_on "$CORE"
	holds 'under load' under_load
	printf 'proof: tiers: node %s drained: its memory had moved after %s ms, its program was ended, and it was OFFLINE after %s ms; %s pages moved; homed now: %s; the slowest fault on node 0 took less than %s\n' \
		"$LEAVER" "$waited" "$took" "$(($(handed_over 0 2 3 4) - before))" "${homed[*]}" \
		"$(slowest before-drain after-drain)"
}

# ---- the end ---------------------------------------------------------------------------

check_guest() {
	local line i host
	await_end "$guest" $((STRESS * 3)) # three times as long as it should take
	output=$(tail -n 5 "$NET_DIR/guest.log")
	holds 'the guest ends by itself' test "$status" = 0
	line=$(grep -aE '^verified ' "$NET_DIR/guest.log" | tr -d '\r')
	expect 'without an error' 0 ', 0 errors'
	line=${line#verified }
	holds 'and has verified most of its memory' test "${line%% *}" -ge $((MEM / 2))
	for i in "${!visitors[@]}"; do
		check_visitor "$i"
	done
	for i in 0 2 3 4; do
		holds "node $i homes its part of the memory" homes_its_part "$i" 4
	done
	for host in 1 3 4 5 "$POD_A" "$POD_B" "$CORE"; do
		run on "$host" stop
		expect "the daemons of host $host end" 0 'gateway is stopped'
		[[ $output != *SIGKILL* ]]
		verdict 'by SIGTERM alone' $?
	done
	printf 'proof: tiers: the guest verified %s MiB, 0 errors\n' "${line%% *}"
}

if [ "$EUID" -ne 0 ]; then
	printf 'SKIPPED: namespaces and userfaultfd need root\n'
	exit 0
fi
for file in "$QEMU" "$BUILD/guest/vmlinux" "$WVM_BIN/wavevm_gateway"; do
	[ -e "$file" ] || give_up "$file is missing: make all qemu guest"
done
make_networks || give_up 'no networks'
add_spare || give_up 'no topology'
check_networks
start_daemons
start_guest
check_homes
check_tiers
harm_began=$SECONDS
core_is_replaced_elsewhere
pod_is_restarted "$POD_B" pod-b
pod_is_restarted "$POD_A" pod-a
core_moves_in_peace
spare_joins
node_drains
check_guest
finish
