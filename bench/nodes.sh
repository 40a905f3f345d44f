# Masters on this machine over loopback, for the benchmarks. Sourced by
# bash scripts that have entered a network namespace of their own:
#
#   nodes_enter "$@"                    # first: the script starts again in the namespace
#   nodes_up SIZE CPUS [OPTION...]      # CPUS: one number (or list) per node, as "0 1 1" for three
#   nodes_slave NODE CPUS [OPTION...]   # its slave, which answers soon after
#   $NODES_DIR/ring.0 ...               # the ring files
#   nodes_down
#
# The ports are those of the namespace, so a cluster that runs here is not met.
# Everything is ended by process id and removed, also when interrupted.

# shellcheck shell=bash
NODES_DIR=
NODES_SHM="/dev/shm/wvmbench-$$"
NODE_PIDS=()
SLAVE_PIDS=()
NODES_HERE=$(dirname -- "${BASH_SOURCE[0]}")
BUILD=$(realpath -m -- "${BUILD:-$NODES_HERE/../build}")
export BUILD
NODES_BIN=$BUILD/bin
# All of this machine's memory: no benchmark is to meet a node's budget unless it wants to.
nodes_ram_mb=$(awk '/^MemTotal:/ { print int($2 / 1024) }' /proc/meminfo)

nodes_say() { printf 'bench: %s\n' "$*" >&2; }

# Starts the calling script again inside a new network namespace with loopback up.
nodes_enter() {
	if [[ ${WVM_BENCH_NAMESPACE:-} == "$$" ]]; then
		unset WVM_BENCH_NAMESPACE
		ip link set lo up || exit 1
		nodes_begin
		return
	fi
	if ((EUID != 0)); then
		nodes_say "userfaultfd and network namespaces need root"
		exit 1
	fi
	# exec keeps the process id.
	WVM_BENCH_NAMESPACE=$$ exec unshare --net -- bash "$0" "$@"
}

nodes_begin() {
	local left pid
	for left in /dev/shm/wvmbench-*; do
		pid=${left#/dev/shm/wvmbench-}
		pid=${pid%%.*}
		[[ $pid =~ ^[0-9]+$ && ! -d /proc/$pid ]] && rm -f -- "$left"
	done
	NODES_DIR=$(mktemp -d "${TMPDIR:-/tmp}/wvmbench-$$.XXXXXX") || exit 1
	trap nodes_end EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM HUP
}

nodes_end() {
	local status=$? i
	trap '' INT TERM HUP
	if ((status != 0 && ${#NODE_PIDS[@]} > 0)); then
		for i in "${!NODE_PIDS[@]}"; do
			nodes_say "node $i said last:"
			tail -n 5 "$NODES_DIR/log.$i" >&2
		done
		for i in "${!SLAVE_PIDS[@]}"; do
			nodes_say "its slave $i said last:"
			tail -n 5 "$NODES_DIR/log.slave.$i" >&2
		done
	fi
	nodes_down
	rm -rf -- "$NODES_DIR"
	exit "$status"
}

# Whether a process runs; one that only waits to be collected does not.
node_runs() {
	local state
	state=$(sed -n 's/^.*) \(.\).*/\1/p' "/proc/$1/stat" 2>/dev/null)
	[[ -n $state && $state != Z && $state != X ]]
}

node_wait_ready() {
	local i
	for ((i = 0; i < 600; i++)); do
		grep -Eqs '(^|: )ready([ ,.:]|$)' "$NODES_DIR/log.$1" && return 0
		if ! node_runs "${NODE_PIDS[$1]}"; then
			break
		fi
		sleep 0.05
	done
	nodes_say "node $1 did not become ready:"
	tail -n 5 "$NODES_DIR/log.$1" >&2
	return 1
}

# nodes_up SIZE CPUS [OPTION...]: VM 0 of that size (as 1G) on fresh nodes, one for each word of CPUS.
nodes_up() {
	local size=$1 cpus i
	read -ra cpus <<<"$2"
	shift 2
	for i in "${!cpus[@]}"; do
		printf 'NODE %d 127.0.0.1 %d 1 4 %d\n' "$i" $((9000 + 10 * i)) $((9001 + 10 * i))
	done >"$NODES_DIR/topology"
	for i in "${!cpus[@]}"; do
		mkdir -p "$NODES_DIR/state.$i"
		"$NODES_BIN/wavevm_node_master" "$nodes_ram_mb" $((9000 + 10 * i)) "$NODES_DIR/topology" "$i" \
			$((9001 + 10 * i)) $((9005 + 10 * i)) --fresh --vm "0:$size" \
			--ring-path "$NODES_DIR/ring.$i" --shm-file "$NODES_SHM.$i" \
			--state-dir "$NODES_DIR/state.$i" --cpus "${cpus[$i]}" "$@" \
			>"$NODES_DIR/log.$i" 2>&1 </dev/null &
		NODE_PIDS[i]=$!
	done
	for i in "${!cpus[@]}"; do
		node_wait_ready "$i" || return 1
	done
}

# nodes_slave NODE CPUS [OPTION...]: the slave of a node whose master is up, with all of its threads on these CPUs:
# its own would leave the processors' ones to them where it may, and a layout on one core would be none.
nodes_slave() {
	taskset -c "$2" "$NODES_BIN/wavevm_node_slave" $((9005 + 10 * $1)) 1 "$nodes_ram_mb" "$1" $((9001 + 10 * $1)) \
		--ring-path "$NODES_DIR/ring.$1" --cpus "$2" "${@:3}" >"$NODES_DIR/log.slave.$1" 2>&1 </dev/null &
	SLAVE_PIDS[$1]=$!
}

# nodes_counter NODE NAME: one of its counters, 0 if it has none of that name.
nodes_counter() {
	local value
	value=$("$NODES_BIN/wvm_ctl" --port $((9001 + 10 * $1)) stats --json |
		sed 's/[,{]/\n/g' | sed -n "s/^ *\"$2\": *\([0-9]*\).*/\1/p" | head -n 1)
	printf '%s' "${value:-0}"
}

nodes_median() { printf '%s\n' "$@" | sort -g | sed -n "$((($# + 1) / 2))p"; }

# nodes_ratio NAME LAYOUT "OURS..." "BASE...": the median of the rounds' ratios, as wvmbench prints it.
nodes_ratio() {
	local ours base i ratios=()
	read -ra ours <<<"$3"
	read -ra base <<<"$4"
	for ((i = 0; i < ${#ours[@]}; i++)); do
		ratios+=("$(awk "BEGIN { printf \"%.4f\", ${ours[i]} / ${base[i]} }")")
	done
	printf 'ratio %s %s %.3f\n' "$1" "$2" "$(nodes_median "${ratios[@]}")"
}

# nodes_series NAME UNIT AGAINST "OURS..." "BASE..." [COUNTS [LAYOUT]]: a result as wvmbench writes it.
nodes_series() {
	printf '{"program": "%s", "layout": "%s", "counts": {%s},\n' "$1" "${7:-all-cores}" "${6:-}"
	printf '"series": [\n{"name": "%s", "unit": "%s", "against": "%s", "ours": [%s], "base": [%s]}]}\n' \
		"$1" "$2" "$3" "${4// /, }" "${5// /, }"
}

# nodes_stop PID...: ends daemons, all at once.
nodes_stop() {
	local pid i
	for pid in "$@"; do
		kill -TERM "$pid" 2>/dev/null
	done
	for pid in "$@"; do
		for ((i = 0; i < 100; i++)); do
			node_runs "$pid" || break
			sleep 0.05
		done
		if node_runs "$pid"; then
			nodes_say "daemon $pid ignores SIGTERM, killing it"
			kill -KILL "$pid"
		fi
		wait "$pid" 2>/dev/null
	done
}

nodes_down() {
	nodes_stop "${SLAVE_PIDS[@]}" # first, as they are programs of their masters
	nodes_stop "${NODE_PIDS[@]}"
	SLAVE_PIDS=()
	NODE_PIDS=()
	rm -f -- "$NODES_SHM".*
	return 0
}
