# A network of this machine's own, to be sourced by bash scripts run as root:
#
#   . roles/check/net.sh
#   net_up 3                      # namespaces 1 2 3, addresses 10.77.0.1 .. 10.77.0.3
#   net_exec 2 ping -c1 10.77.0.1
#   net_start 1 logname program   # in the background; $NET_PID is its process id
#   net_stop "$NET_PID"           # net_kill: by SIGKILL
#   net_down                      # also done by a trap when the script ends
#
# Hosts of several networks, which reach each other only where they have one in common:
#
#   net_up_apart 3                # namespaces 1 2 3, joined by nothing, that forward nothing
#   net_link lan 1 10.0.0.1/24    # a device "lan" in host 1, at the bridge of that name
#   net_link lan 2 10.0.0.2/24
#   net_link wan 2 10.0.1.2/24
#
# The namespaces are joined by veth pairs over a bridge (MTU 1500, real segments,
# GRO on), or, when CHAOS or NET_WIRE is set, by wvm_wire with CHAOS as its
# specification and SEED as its seed; net_chaos then changes it while it runs.
# Names carry the process id of the script: runs do not meet, and net_up removes
# what a run that was killed left behind. Nothing outside the namespaces changes.
#
# Settings: WVM_BIN (where wvm_wire is), NET_MTU (1500), NET_DIR (set by net_up:
# a directory for logs and sockets that net_down removes; NET_KEEP=1 keeps it).

# shellcheck shell=bash
NET_PREFIX=10.77.0
NET_TAG="wvm-$$"
NET_COUNT=0
NET_DIR=
NET_PID=
NET_WIRE_PID=
NET_PIDS=()
NET_HOOKS=()

net_say() { printf 'net: %s\n' "$*" >&2; }

# Namespace of host I.
net_ns() { printf '%s-%s' "$NET_TAG" "$1"; }

# Address of host I.
net_ip() { printf '%s.%s' "$NET_PREFIX" "$1"; }

# Runs a command in host I. The process keeps its pid through the exec.
net_exec() {
	local host=$1
	shift
	nsenter --net="/run/netns/$(net_ns "$host")" -- "$@"
}

# net_start I LOG COMMAND...: runs a command in host I in the background, its output in
# $NET_DIR/LOG.log, its pid in NET_PID.
net_start() {
	local host=$1 log=$2
	shift 2
	nsenter --net="/run/netns/$(net_ns "$host")" -- "$@" >"$NET_DIR/$log.log" 2>&1 </dev/null &
	NET_PID=$!
	NET_PIDS+=("$NET_PID")
}

# Ends a process that net_start started: SIGTERM, SIGKILL after 5 s. Returns its exit status.
net_stop() {
	local pid=$1 i status=0
	kill -TERM "$pid" 2>/dev/null
	kill -CONT "$pid" 2>/dev/null
	for ((i = 0; i < 100; i++)); do
		net_running "$pid" || break
		sleep 0.05
	done
	if net_running "$pid"; then
		net_say "process $pid ignores SIGTERM, killing it"
		kill -KILL "$pid" 2>/dev/null
	fi
	wait "$pid" 2>/dev/null || status=$?
	net_forget "$pid"
	return "$status"
}

# Kills a process that net_start started, and waits for its end.
net_kill() {
	kill -KILL "$1" 2>/dev/null
	wait "$1" 2>/dev/null
	net_forget "$1"
}

net_forget() {
	local pid rest=()
	for pid in "${NET_PIDS[@]}"; do
		[[ $pid == "$1" ]] || rest+=("$pid")
	done
	NET_PIDS=("${rest[@]}")
}

# Whether a process runs; one that only waits to be collected does not.
net_running() {
	local state
	state=$(sed -n 's/^.*) \(.\).*/\1/p' "/proc/$1/stat" 2>/dev/null)
	[[ -n $state && $state != Z && $state != X ]]
}

# net_wait_for PATTERN FILE [SECONDS]: waits for a line that matches.
net_wait_for() {
	local i
	for ((i = 0; i < ${3:-20} * 20; i++)); do
		grep -qE -- "$1" "$2" 2>/dev/null && return 0
		sleep 0.05
	done
	net_say "no '$1' in $2 within ${3:-20} s"
	return 1
}

# net_on_exit COMMAND: runs before net_down when the script ends, the last one first.
net_on_exit() { NET_HOOKS=("$1" "${NET_HOOKS[@]}"); }

net_cleanup() {
	local status=$? hook
	trap '' INT TERM HUP
	trap - EXIT
	for hook in "${NET_HOOKS[@]}"; do
		eval "$hook"
	done
	net_down
	exit "$status"
}

# Removes namespaces whose script is no longer alive.
net_remove_stale() {
	local name pid
	for name in /run/netns/wvm-*-*; do
		name=${name##*/}
		pid=${name#wvm-}
		pid=${pid%%-*}
		[[ $pid =~ ^[0-9]+$ ]] || continue
		[[ -d /proc/$pid ]] && continue
		ip netns delete "$name" 2>/dev/null && net_say "removed $name of a dead run"
	done
	for name in "${TMPDIR:-/tmp}"/wvm-net-*; do
		pid=${name##*wvm-net-}
		pid=${pid%%.*}
		[[ $pid =~ ^[0-9]+$ && ! -d /proc/$pid ]] && rm -rf -- "$name"
	done
	return 0
}

net_wire_program() {
	local here
	here=$(dirname -- "${BASH_SOURCE[0]}")
	printf '%s/wvm_wire' "${WVM_BIN:-$here/../../build/bin}"
}

net_add_host() {
	local ns
	ns=$(net_ns "$1")
	ip netns add "$ns" && ip -n "$ns" link set lo up
}

# Gives the device of host I its address; the neighbours are the other hosts.
net_address() {
	local ns
	ns=$(net_ns "$1")
	ip -n "$ns" address add "$(net_ip "$1")/24" dev eth0 &&
		ip -n "$ns" link set eth0 up
}

# net_bridge NAME: in the namespace of bridges, which is made with the first one.
net_bridge() {
	local ns
	ns=$(net_ns bridge)
	[[ -e /run/netns/$ns ]] || ip netns add "$ns" || return 1
	ip -n "$ns" link add "$1" mtu "${NET_MTU:-1500}" type bridge forward_delay 0 mcast_snooping 0 &&
		ip -n "$ns" link set "$1" up
}

# net_plug BRIDGE HOST DEVICE: joins host to bridge by a device without an address.
# A veth carries a large packet whole unless gso_max_segs forbids it, and merges what it
# receives only if its other end has no TSO: both are set, so segments are cut and merged
# as between hosts.
net_plug() {
	local bridge=$1 host=$2 device=$3 port="$1.$2" ns bridges mtu=${NET_MTU:-1500} wire
	ns=$(net_ns "$host")
	bridges=$(net_ns bridge)
	wire=$(net_wire_program)
	ip -n "$ns" link add "$device" mtu "$mtu" type veth peer name "$port" mtu "$mtu" \
		netns "$bridges" || return 1
	ip -n "$ns" link set "$device" gso_max_segs 1 txqueuelen 10000 || return 1
	ip -n "$bridges" link set "$port" master "$bridge" up || return 1
	ip -n "$bridges" link set "$port" gso_max_segs 1 || return 1
	[[ -x $wire ]] || return 0
	net_exec "$host" "$wire" --card "$device" && net_exec bridge "$wire" --card "$port"
}

net_join_by_bridge() {
	local i
	net_bridge br0 || return 1
	for ((i = 1; i <= NET_COUNT; i++)); do
		net_plug br0 "$i" eth0 && net_address "$i" || return 1
	done
}

# net_link NETWORK HOST ADDRESS/BITS: gives a host of net_up_apart a device in a network.
net_link() {
	local ns
	ns=$(net_ns "$2")
	[[ -e /run/netns/$(net_ns bridge) ]] &&
		ip -n "$(net_ns bridge)" link show "$1" >/dev/null 2>&1 || net_bridge "$1" || return 1
	net_plug "$1" "$2" "$1" &&
		ip -n "$ns" address add "$3" dev "$1" && ip -n "$ns" link set "$1" up
}

net_join_by_wire() {
	local i names=() wire
	wire=$(net_wire_program)
	for ((i = 1; i <= NET_COUNT; i++)); do
		names+=("$(net_ns "$i")")
	done
	"$wire" --with-parent --mtu "${NET_MTU:-1500}" --seed "${SEED:-1}" --chaos "${CHAOS:-}" \
		--control "$NET_DIR/wire" --stats "$NET_DIR/wire.json" "${names[@]}" \
		>"$NET_DIR/wire.log" 2>&1 </dev/null &
	NET_WIRE_PID=$!
	NET_PIDS+=("$NET_WIRE_PID")
	for ((i = 0; i < 400; i++)); do
		grep -qs 'ready' "$NET_DIR/wire.log" && break
		if ! net_running "$NET_WIRE_PID"; then
			net_say "the wire did not start: $(tail -n1 "$NET_DIR/wire.log")"
			return 1
		fi
		sleep 0.05
	done
	for ((i = 1; i <= NET_COUNT; i++)); do
		net_address "$i" || return 1
	done
}

# net_chaos COMMAND...: tells the wire, e.g. net_chaos loss 5% partition '1|2,3'.
net_chaos() { "$(net_wire_program)" --tell "$NET_DIR/wire" "$@"; }

# The wire's counters now, as JSON.
net_wire_stats() { net_chaos stats; }

# Hosts 1 .. N without a network. On failure everything is removed again.
net_make_hosts() {
	local i
	if ((EUID != 0)); then
		net_say "network namespaces need root"
		return 1
	fi
	if ((NET_COUNT > 0)); then
		net_say "the network is up already"
		return 1
	fi
	if ! [[ ${1:-} =~ ^[0-9]+$ ]] || (($1 < 1 || $1 > 64)); then
		net_say "net_up takes the number of hosts, 1 to 64"
		return 1
	fi
	net_remove_stale
	trap net_cleanup EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM
	trap 'exit 129' HUP
	NET_DIR=$(mktemp -d "${TMPDIR:-/tmp}/wvm-net-$$.XXXXXX") || return 1
	NET_COUNT=$1
	for ((i = 1; i <= NET_COUNT; i++)); do
		net_add_host "$i" || { net_down; return 1; }
	done
}

# net_up N: makes hosts 1 .. N and joins them. On failure everything is removed again.
net_up() {
	net_make_hosts "${1:-}" || return 1
	if [[ -n ${CHAOS:-} || -n ${NET_WIRE:-} ]]; then
		net_join_by_wire || { net_down; return 1; }
	else
		net_join_by_bridge || { net_down; return 1; }
	fi
}

# net_up_apart N: makes hosts 1 .. N, for net_link. None of them is a router: what one of
# them passes on, a program there does.
net_up_apart() {
	local i
	net_make_hosts "${1:-}" || return 1
	for ((i = 1; i <= NET_COUNT; i++)); do
		net_exec "$i" sysctl -qw net.ipv4.ip_forward=0 || { net_down; return 1; }
	done
}

# Ends what net_start and net_up started and removes the namespaces. May be called twice.
net_down() {
	local i pid
	for pid in "${NET_PIDS[@]}"; do
		[[ $pid == "$NET_WIRE_PID" ]] || net_stop "$pid"
	done
	[[ -n $NET_WIRE_PID ]] && net_stop "$NET_WIRE_PID"
	for ((i = 1; i <= NET_COUNT; i++)); do
		ip netns delete "$(net_ns "$i")" 2>/dev/null
	done
	ip netns delete "$(net_ns bridge)" 2>/dev/null
	[[ -n $NET_DIR && -z ${NET_KEEP:-} ]] && rm -rf -- "$NET_DIR"
	NET_COUNT=0
	NET_DIR=
	NET_PIDS=()
	NET_WIRE_PID=
	return 0
}
