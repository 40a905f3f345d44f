#!/bin/bash
# What a user would do without WaveVM whose guest needs more memory than its host has: a guest that
# swaps to memory on another host. Its disk is QEMU's nbd client, the server nbdkit's memory plugin. Compared
# with a guest under -accel wavevm with all of the memory, on a node with a budget as small as
# the other guest's RAM. Both verify the same patterns over the same memory; hosts are network
# namespaces, joined by veth.
#   bench/guest-swap.sh          prints MiB/s of both, and "ratio guest-swap ..."
# Environment: BUILD (default: build), PAIRS (1), HOST_MIB (128: RAM of the swapping guest and budget of the
# node), GUEST_MIB (512: RAM of WaveVM's guest), WORK_MIB (384: memory that is verified),
# nodes_guest_json (a file for the result as JSON).
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
qemu=$BUILD/qemu/qemu-system-x86_64
sweeps=7 # over the memory, in the passes of deploy/guest/memory.c without its stress test
rate='' most_kib=0

die() {
	printf 'bench: %s\n' "$*" >&2
	exit 1
}

remove_shm() { rm -f -- /dev/shm/"$NET_TAG"-*; }

# guest PARAMETERS QEMU_OPTION...: boots it on host 1; MiB/s of its passes in $rate, and the most
# memory that node 1's cache had meanwhile in $most_kib.
guest() {
	local console=$NET_DIR/guest.log parameters=$1 seconds kib
	shift
	most_kib=0
	WVM_RING_PATH=$NET_DIR/ring.1 net_start 1 guest timeout 900 deploy/guest/run.sh "$qemu" \
		"wvm.seconds=0 wvm.mib=$work_mib $parameters" -smp 1 "$@"
	while net_running "$NET_PID"; do
		kib=$(du -k "/dev/shm/$NET_TAG-1.0" 2>/dev/null | cut -f 1)
		if ((${kib:-0} > most_kib)); then most_kib=$kib; fi
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

# Budgets of the other hosts hold what the guest's node does not.
wavevm_guest() {
	local i masters=() budget
	for i in 1 2 3; do
		printf 'NODE %d %s 9000 1 4\n' "$i" "$(net_ip "$i")"
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
for ((n = 1; n <= pairs; n++)); do
	swapping_guest
	wavevm_guest
	ratios+=("$(awk "BEGIN { printf \"%.4f\", ${wavevm[-1]} / ${swapped[-1]} }")")
	printf 'pair %d: swapping to nbdkit %s MiB/s, wavevm %s MiB/s; node 1 cached at most %d MiB of %d\n' \
		"$n" "${swapped[-1]}" "${wavevm[-1]}" $((most[-1] / 1024)) "$host_mib"
done
printf 'count budget_used_most_mib all-cores %d\n' $((most[-1] / 1024))
if ((most[-1] > host_mib * 1024 * 105 / 100)); then
	printf 'the node took more than its budget and 5 %%: the two had not the same memory, no ratio\n'
	exit 0
fi
printf 'ratio guest-swap all-cores %.3f\n' "$(nodes_median "${ratios[@]}")"
if [[ -n ${nodes_guest_json:-} ]]; then
	nodes_series guest-swap MiB/s "swapping to nbdkit" "${wavevm[*]}" "${swapped[*]}" \
		"\"budget_used_most_mib\": $((most[-1] / 1024))" >"$nodes_guest_json"
fi
