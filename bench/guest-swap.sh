#!/bin/bash
# What a user would do without WaveVM whose guest needs more memory than its host has: a guest that
# swaps to memory on another host. Its disk is QEMU's nbd client, the server nbdkit's memory plugin. Compared
# with a guest under -accel wavevm with all of the memory, on a node with a budget as small as
# the other guest's RAM. Both verify the same patterns over the same memory; hosts are network
# namespaces, joined by veth.
#   bench/guest-swap.sh          prints MiB/s of both, and "ratio guest-swap ..."
# Environment: BUILD (default: build), PAIRS (1), HOST_MIB (128: RAM of the swapping guest and budget of the
# node), GUEST_MIB (512: RAM of WaveVM's guest), WORK_MIB (384: memory that is verified), KINDS ("nbdkit
# wavevm": one of them alone gives its MiB/s and no ratio), GUEST_SECONDS (900: a guest that takes longer is
# an error), nodes_guest_json (a file for the result as JSON).
# A guest four times as large as its host: HOST_MIB=1024 GUEST_MIB=4096 WORK_MIB=3584 GUEST_SECONDS=3600.
# The homes are on two other nodes, but for less than 1 % (a member of the topology has some). A node that
# has more than its budget and 5 % in its RAM file at any sample (five a second) is an error.
# Needs qemu-accel/build.sh and deploy/guest/build.sh to have run, and nbdkit.
set -u
cd -- "$(dirname -- "$0")/.." || exit 1
BUILD=$(realpath -m -- "${BUILD:-build}")
WVM_BIN=$BUILD/bin
# shellcheck source=roles/check/net.sh
. roles/check/net.sh
# shellcheck source=bench/nodes.sh
. bench/nodes.sh # for medians and the form of results
pairs=${PAIRS:-1}
host_mib=${HOST_MIB:-128} guest_mib=${GUEST_MIB:-512} work_mib=${WORK_MIB:-384}
kinds=${KINDS:-nbdkit wavevm} seconds_max=${GUEST_SECONDS:-900}
qemu=$BUILD/qemu/qemu-system-x86_64
sweeps=7 # over the memory, in the passes of deploy/guest/memory.c without its stress test
rate='' most_kib=0 samples=0

die() {
	printf 'bench: %s\n' "$*" >&2
	exit 1
}

remove_shm() { rm -f -- /dev/shm/"$NET_TAG"-*; }

# guest PARAMETERS QEMU_OPTION...: boots it on host 1; MiB/s of its passes in $rate, and the most
# memory that node 1's cache had meanwhile in $most_kib, of so many $samples.
guest() {
	local console=$NET_DIR/guest.log parameters=$1 seconds kib
	shift
	most_kib=0 samples=0
	WVM_RING_PATH=$NET_DIR/ring.1 net_start 1 guest timeout "$seconds_max" deploy/guest/run.sh "$qemu" \
		"wvm.seconds=0 wvm.mib=$work_mib $parameters" -smp 1 "$@"
	while net_running "$NET_PID"; do
		kib=$(du -k "/dev/shm/$NET_TAG-1.0" 2>/dev/null | cut -f 1)
		if ((${kib:-0} > most_kib)); then most_kib=$kib; fi
		samples=$((samples + 1))
		sleep 0.2
	done
	wait "$NET_PID"
	net_forget "$NET_PID"
	grep -q "^verified $work_mib MiB, 0 errors" "$console" || {
		tail -n 5 "$console" >&2
		die "the guest with '$*' did not verify its memory"
	}
	seconds=$(sed -nE 's/^(ascending|inverted|random|final) .* MiB, ([0-9.]+) s.*/\2/p' "$console" |
		awk '{ s += $1 } END { print s }')
	rate=$(awk "BEGIN { printf \"%.2f\", $sweeps * $work_mib / $seconds }")
}

swapping_guest() {
	local server
	net_start 2 nbdkit nbdkit -f -i "$(net_ip 2)" -p 10809 memory "${guest_mib}M"
	server=$NET_PID
	for ((i = 0; i < 50; i++)); do
		net_exec 1 bash -c "exec 3<>/dev/tcp/$(net_ip 2)/10809" 2>/dev/null && break
		sleep 0.1
	done
	guest "wvm.swap=1" -accel tcg -m "$host_mib" \
		-object "memory-backend-memfd,id=ram,size=${host_mib}M" -machine memory-backend=ram \
		-blockdev "driver=nbd,node-name=swap,server.type=inet,server.host=$(net_ip 2),server.port=10809" \
		-device virtio-blk-pci,drive=swap
	net_stop "$server"
	grep -q '^swap ' "$NET_DIR/guest.log" || die "the guest did not swap"
	swapped+=("$rate")
}

# node_status NODE NAME: a figure of its status.
node_status() {
	net_exec "$1" env WVM_RING_PATH="$NET_DIR/ring.$1" "$WVM_BIN/wvm_ctl" status --json |
		sed -n "s/^ *\"$2\": *\([0-9]*\).*/\1/p" | head -n 1
}

# Budgets of the other hosts hold what the guest's node does not.
wavevm_guest() {
	local i masters=() budget stored
	for i in 1 2 3; do
		printf 'NODE %d %s 9000 1 %d\n' "$i" "$(net_ip "$i")" $((i == 1 ? 1 : 256))
	done >"$NET_DIR/topology"
	for i in 1 2 3; do
		budget=$((guest_mib * 2))
		((i == 1)) && budget=$host_mib
		net_start "$i" "master.$i" "$WVM_BIN/wavevm_node_master" "$budget" 9000 \
			"$NET_DIR/topology" "$i" 9001 9005 --fresh --vm "0:${guest_mib}M" \
			--ring-path "$NET_DIR/ring.$i" --shm-file "/dev/shm/$NET_TAG-$i" \
			--state-dir "$NET_DIR/state.$i"
		masters+=("$NET_PID")
	done
	for i in 1 2 3; do
		net_wait_for ': ready,' "$NET_DIR/master.$i.log" 30 ||
			die "node $i does not start: $(tail -n 1 "$NET_DIR/master.$i.log")"
	done
	guest "" -accel wavevm,mode=user,backend=tcg -m "$guest_mib"
	((samples >= 10 && most_kib > host_mib * 1024 / 2)) ||
		die "$samples samples saw at most $((most_kib / 1024)) MiB: the budget was not used"
	((most_kib <= host_mib * 1024 * 105 / 100)) ||
		die "node 1 had $((most_kib / 1024)) MiB in its RAM file, of a budget of $host_mib"
	stored=$(node_status 1 store_bytes)
	((stored <= guest_mib * 1048576 / 50)) || die "node 1 is home to $stored bytes of its guest"
	printf 'node 1: %d samples, at most %d MiB of %d cached; home to %d MiB; %s pages given up Modified, %s Shared; %s faults waited, %s failed\n' \
		"$samples" $((most_kib / 1024)) "$host_mib" $((stored / 1048576)) \
		"$(node_status 1 evicted_modified)" "$(node_status 1 evicted_shared)" \
		"$(node_status 1 reclaim_waits)" "$(node_status 1 reclaim_failed)"
	for i in "${masters[@]}"; do
		net_stop "$i"
	done
	wavevm+=("$rate") most+=("$most_kib")
}

((EUID == 0)) || die "network namespaces and userfaultfd need root"
[[ -x $qemu && -s $BUILD/guest/vmlinux ]] || die "no $qemu or no guest; run 'make qemu guest' first"
command -v nbdkit >/dev/null || die "nbdkit is not installed; run 'make deps'"
net_up 3 || die "cannot make the network"
net_on_exit remove_shm
swapped=() wavevm=() most=() ratios=()
wanted() { [[ " $kinds " == *" $1 "* ]]; }

for name in $kinds; do
	[[ $name == nbdkit || $name == wavevm ]] || die "KINDS has '$name': there are nbdkit and wavevm"
done
for ((n = 1; n <= pairs; n++)); do
	if wanted nbdkit; then
		swapping_guest
		printf 'pair %d: swapping to nbdkit %s MiB/s\n' "$n" "${swapped[-1]}"
	fi
	if wanted wavevm; then
		wavevm_guest
		printf 'pair %d: wavevm %s MiB/s\n' "$n" "${wavevm[-1]}"
	fi
	if wanted nbdkit && wanted wavevm; then
		ratios+=("$(awk "BEGIN { printf \"%.4f\", ${wavevm[-1]} / ${swapped[-1]} }")")
	fi
done
((${#most[@]} == 0)) || printf 'count budget_used_most_mib all-cores %d\n' $((most[-1] / 1024))
((${#ratios[@]} > 0)) || exit 0
printf 'ratio guest-swap all-cores %.3f\n' "$(nodes_median "${ratios[@]}")"
if [[ -n ${nodes_guest_json:-} ]]; then
	nodes_series guest-swap MiB/s "swapping to nbdkit" "${wavevm[*]}" "${swapped[*]}" \
		"\"budget_used_most_mib\": $((most[-1] / 1024))" >"$nodes_guest_json"
fi
