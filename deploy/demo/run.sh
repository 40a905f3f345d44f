#!/bin/bash
# The main job: a Debian kernel boots in QEMU, its RAM homed on three nodes, and checks its memory.
#   deploy/demo/run.sh        (make demo builds what it needs first)
# Three nodes run in three network namespaces of their own, joined by veth (MTU 1500); the guest
# runs on node 1, programs on nodes 2 and 3 keep taking its pages away. Needs root.
# Environment: MEM (MiB of guest RAM, 512), CPUS (2), SECONDS_STRESS (10), VISITS (pages per second
# and visitor, 500), CHAOS ("loss 1% duplicate 1% reorder 5% delay 1ms"), SEED (1), BUILD (build),
# KILLS (0): so many times a master is killed (kill -9) and started again while the guest runs;
# LENDS=1: a fourth node lends memory only (0 cores), and is killed for good while the guest runs;
# VCPUS=remote: vCPUs on several nodes; PLACE (1+1+2) says how many run on nodes 1, 2 and 3;
# CPU_TESTS=1: the guest then tests what such vCPUs could get wrong (clocks, code, programs), which takes minutes;
# LITMUS=1: and it runs the litmus tests, with a thread on each vCPU, 6 s each; LITMUS=disordered:
# by threads that keep no order, which has to end with errors.
set -u
cd -- "$(dirname -- "$0")/../.." || exit 1
BUILD=${BUILD:-build}
case $BUILD in /*) ;; *) BUILD=$PWD/$BUILD ;; esac
WVM_BIN=$BUILD/bin
vcpus=${VCPUS:-local} tests=
place=${PLACE:-1+1+2}
if [ "$vcpus" = remote ]; then
	[[ $place =~ ^[1-9][0-9]?(\+[0-9]{1,2}){1,2}$ ]] || {
		echo "demo: PLACE=$place is no list of how many vCPUs nodes 1, 2 and 3 run, such as 2+2" >&2
		exit 2
	}
	CPUS=$((place)) tests=" wvm.cpus=work"
	[ "${CPU_TESTS:-0}" = 0 ] || tests=" wvm.cpus=1"
	case ${LITMUS:-0} in
	0) ;;
	1 | disordered) tests+=" wvm.litmus=$LITMUS" ;;
	*)
		echo "demo: LITMUS=$LITMUS is neither 1 nor disordered" >&2
		exit 2
		;;
	esac
fi
mem=${MEM:-512} cpus=${CPUS:-2} stress=${SECONDS_STRESS:-10} visits=${VISITS:-500} seed=${SEED:-1}
kills=${KILLS:-0} lends=${LENDS:-0} nodes=(1 2 3)
[ "$lends" = 0 ] || nodes+=(4)
export SEED=$seed CHAOS=${CHAOS:-}
# Which node homes a 2 MiB unit follows from a hash of VM id and address, so a small VM may be dealt
# unevenly by chance. This id is dealt evenly at every size that the demo is likely to have.
VM=6
accel=wavevm,vm-id=$VM
# shellcheck source=roles/check/net.sh
. roles/check/net.sh
case $vcpus in
local | remote) ;;
*)
	echo "demo: VCPUS=$vcpus is neither local nor remote" >&2
	exit 2
	;;
esac

say() { printf '%s\n' "$*"; }
die() {
	printf 'demo: %s\n' "$*" >&2
	exit 1
}

# Figures of a node: json I COMMAND KEY...
json() {
	local i=$1 command=$2
	shift 2
	net_exec "$i" "$WVM_BIN/wvm_ctl" --json "$command" >"$NET_DIR/$command.$i" || return 1
	python3 - "$NET_DIR/$command.$i" "$@" <<-'PY'
		import json, sys
		o = json.load(open(sys.argv[1]))
		for path in sys.argv[2:]:
		    v = o
		    for k in path.split('.'):
		        v = v[k]
		    print(v, end=' ')
	PY
}

remove_shm() { rm -f -- /dev/shm/"$NET_TAG"-*; }

start_master() {
	net_start "$1" "master.$1" "$WVM_BIN/wavevm_node_master" $((mem * 2)) 9000 \
		"$NET_DIR/topology" "$1" 9001 9005 --vm "$VM:${mem}M" \
		--ring-path "$NET_DIR/ring.$1" --shm-file "/dev/shm/$NET_TAG-$1" \
		--state-dir "$NET_DIR/state.$1"
	masters[$1]=$NET_PID
}

start_masters() {
	local i
	for i in "${nodes[@]}"; do
		printf 'NODE %d %s 9000 %d 1\n' "$i" "$(net_ip "$i")" $((i < 4 ? 2 : 0))
	done >"$NET_DIR/topology"
	net_on_exit remove_shm
	for i in "${nodes[@]}"; do
		start_master "$i"
	done
	for i in "${nodes[@]}"; do
		net_wait_for ': ready,' "$NET_DIR/master.$i.log" 30 ||
			die "node $i does not start: $(tail -n1 "$NET_DIR/master.$i.log")"
	done
}

# Slaves, and which node each vCPU but the first goes to.
start_slaves() {
	local i k nodes= on
	[ "$vcpus" = remote ] || return 0
	IFS=+ read -r -a on <<<"$place"
	for ((i = 2; i <= ${#on[@]}; i++)); do
		net_start "$i" "slave.$i" "$WVM_BIN/wavevm_node_slave" 9005 2 "$mem" "$i" 9001 --no-kvm \
			--ring-path "$NET_DIR/ring.$i" --qemu "$BUILD/qemu/qemu-system-x86_64"
		net_wait_for ': ready' "$NET_DIR/slave.$i.log" 30 ||
			die "no slave on node $i: $(tail -n1 "$NET_DIR/slave.$i.log")"
		for ((k = 0; k < on[i - 1]; k++)); do
			nodes+=:$i
		done
	done
	accel+=,backend=tcg,split=${on[0]},remote=${nodes#:},report=on
}

# A line for each vCPU: its node, what it got done in the guest, and why its runs ended (QEMU's report).
print_vcpus() {
	local i work node runs on split
	[ "$vcpus" = remote ] || return 0
	IFS=+ read -r -a on <<<"$place"
	split=${on[0]}
	say
	for ((i = 0; i < cpus; i++)); do
		work=$(sed -n "s/^cpu $i  *\([0-9]* units of work, .*\)/\1/p" "$NET_DIR/console")
		[ -n "$work" ] || die "vCPU $i has done no work"
		if [ "$i" -lt "$split" ]; then
			say "vCPU $i on node 1, with the devices: $work"
			continue
		fi
		read -r node runs < <(sed -n \
			"s/^wavevm: vCPU $i on node \([0-9]*\): \([1-9][0-9]* runs.*\)/\1 \2/p" "$NET_DIR/qemu.log")
		[ -n "${runs:-}" ] || die "vCPU $i has not run on another node"
		say "vCPU $i on node $node: $work; $runs"
	done
}

start_visitors() {
	local i
	[ "$visits" -gt 0 ] || return 0
	for i in 2 3; do
		net_start "$i" "visitor.$i" "$WVM_BIN/wvm_visit" --vm "$VM" --rate "$visits" \
			--seed "$((seed * 10 + i))" "$NET_DIR/ring.$i"
		visitors+=("$NET_PID")
		net_wait_for '^ready' "$NET_DIR/visitor.$i.log" 30 ||
			die "no visitor on node $i: $(tail -n1 "$NET_DIR/visitor.$i.log")"
	done
}

# The guest's console, as it comes, without what the firmware draws.
show_console() {
	sed -u 's/\r//g; s/\x1b\[[0-9;?]*[A-Za-z]//g; s/\x1bc//g' |
		tee "$NET_DIR/console" |
		grep --line-buffered -E '^(guest|cpu|together|litmus|clock|code|exec|ascending|inverted|random|stress|final|verified|.*(error|panic|BUG|expected))' |
		sed -u 's/^/  guest| /'
}

run_guest() {
	# --foreground: an interrupt from the terminal reaches QEMU too.
	WVM_RING_PATH=$NET_DIR/ring.1 timeout --foreground "${TIMEOUT:-900}" nsenter \
		--net="/run/netns/$(net_ns 1)" -- deploy/guest/run.sh "$BUILD/qemu/qemu-system-x86_64" \
		"wvm.seconds=$stress wvm.seed=$seed$tests" -accel "$accel" \
		-m "$mem" -smp "$cpus" </dev/null 2>"$NET_DIR/qemu.log" | show_console
	local status=${PIPESTATUS[0]}
	sed '/^wavevm: vCPU .* on node .*runs/d; s/^/  qemu | /' "$NET_DIR/qemu.log"
	return "$status"
}

# Kills masters in turn while the guest (a job of this shell) runs; each is started again at once.
kill_masters() {
	local guest=$1 k victim
	for ((k = 0; k < kills; k++)); do
		sleep "${KILL_PAUSE:-1.5}"
		kill -0 "$guest" 2>/dev/null || die "the guest ended before $((kills - k)) of the kills"
		victim=$((k % 3 + 1))
		net_kill "${masters[victim]}"
		mv "$NET_DIR/master.$victim.log" "$NET_DIR/master.$victim.killed.$k"
		start_master "$victim"
		net_wait_for ': ready,' "$NET_DIR/master.$victim.log" 30 ||
			die "node $victim does not come back: $(tail -n1 "$NET_DIR/master.$victim.log")"
		say "  node $victim killed: $(sed -n 's/^wavevm_node_master: took/took/p' \
			"$NET_DIR/master.$victim.log")"
	done
}

# The node that lends memory dies for good when all that it stores is at second homes, too.
kill_lender() {
	local guest=$1 began homed missing
	[ "$lends" != 0 ] || return 0
	net_wait_for '^random' "$NET_DIR/console" 300 || die "the guest has not begun to use its memory"
	until homed=$(json 4 status pages_homed) && missing=$(json 4 stats core.backup_missing) &&
		[ "$homed" -gt 0 ] && [ "$missing" -eq 0 ]; do
		kill -0 "$guest" 2>/dev/null || die "the guest ended before node 4 was killed"
		sleep 0.1
	done
	net_kill "${masters[4]}"
	began=$SECONDS
	say "  node 4 killed for good, home of $((homed)) pages"
	until net_exec 1 "$WVM_BIN/wvm_ctl" members | grep -q '^ *4 .*OFFLINE'; do
		[ $((SECONDS - began)) -lt 60 ] || die "node 4 is not taken out"
		sleep 0.2
	done
	kill -0 "$guest" 2>/dev/null || die "the guest ended before node 4 was taken out"
	say "  node 4 taken out, others have its pages: $((SECONDS - began)) s"
}

print_tables() {
	local i homed shared modified total=0 values all=()
	for i in 1 2 3; do
		all[i]=$(json "$i" status pages_homed pages_shared pages_modified) || return 1
		read -r homed _ <<<"${all[i]}"
		total=$((total + homed))
	done
	say
	say "pages of 4 KiB    homed           held Shared   held Modified"
	for i in 1 2 3; do
		read -r homed shared modified <<<"${all[i]}"
		printf '  node %d   %10d  %3d %%   %11d   %13d\n' "$i" "$homed" \
			$((total ? homed * 100 / total : 0)) "$shared" "$modified"
		# Each is dealt a third of the units; how many pages of one are told apart follows from who used it.
		[ "$lends" != 0 ] || [ $((homed * 8)) -ge "$total" ] || die "node $i homes less than an eighth of the pages"
	done
	say
	say "network           MiB out     datagrams out      pages out   pages as zero   retried   dropped"
	for i in 1 2 3; do
		values=$(json "$i" stats runtime.tx_bytes runtime.tx_datagrams node.pages_sent \
			node.zero_pages_sent core.requests_retried drops.stale) || return 1
		# shellcheck disable=SC2086
		set -- $values
		printf '  node %d   %13.1f  %16d  %13d  %14d  %8d  %8d\n' "$i" \
			"$(awk "BEGIN { print $1 / 1048576 }")" "$2" "$3" "$4" "$5" "$6"
	done
	say
	net_exec 1 "$WVM_BIN/wvm_ctl" stats | sed -n '/from fault to grant/,$p'
}

main() {
	local visitors=() masters=() status i line mib guest
	say "${#nodes[@]} nodes, $mem MiB of guest RAM, $cpus vCPUs${CHAOS:+, wire: $CHAOS (seed $seed)}"
	net_up "${#nodes[@]}" || die "no network"
	start_masters
	start_slaves
	start_visitors
	run_guest &
	guest=$!
	kill_masters "$guest"
	kill_lender "$guest"
	wait "$guest"
	status=$?
	for i in "${visitors[@]}"; do
		net_stop "$i"
	done
	line=$(grep -E '^verified [0-9]+ MiB, [0-9]+ errors' "$NET_DIR/console" | tail -n1)
	if [ "$status" != 0 ] || [ -z "$line" ]; then
		die "the guest did not finish (status $status); its last line: $(tail -n1 "$NET_DIR/console")"
	fi
	print_tables || die "no figures from a node"
	print_vcpus
	for i in 2 3; do
		[ "$visits" -gt 0 ] && say "node $i $(tail -n1 "$NET_DIR/visitor.$i.log")"
	done
	for i in 1 2 3; do
		net_exec "$i" "$WVM_BIN/wvm_ctl" status >/dev/null || die "node $i is gone"
	done
	mib=${line#verified }
	mib=${mib%% *}
	say
	say "$line"
	[ "${line##*, }" = "0 errors" ] || die "the guest found errors"
	[ $((mib * 2)) -ge "$mem" ] || die "less than half of the guest's RAM was verified"
}

main
