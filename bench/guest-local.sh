#!/bin/bash
# Compares memory that a guest has for itself under -accel wavevm with the same guest under plain TCG
# and a memfd: pairs of guests, in each the passes of wvm.mode=bench (deploy/guest/bench.c).
#   bench/guest-local.sh         prints the passes' medians, faults, and "ratio guest-local ..."
# Environment: BUILD (default: build), PAIRS (5), GUEST_MIB (512), BENCH_MIB (128),
# nodes_guest_json (a file for the result as JSON). Needs qemu-accel/build.sh and
# deploy/guest/build.sh to have run.
set -u
cd -- "$(dirname -- "$0")/.." || exit 1
# shellcheck source=bench/nodes.sh
. bench/nodes.sh
pairs=${PAIRS:-5}
mib=${GUEST_MIB:-512}
qemu=$BUILD/qemu/qemu-system-x86_64
console=

faults() { echo $(($(nodes_counter 0 faults_read) + $(nodes_counter 0 faults_write))); }

# await LINE PID: until the guest's console has it.
await() {
	local i
	for ((i = 0; i < 3000; i++)); do
		grep -q "^$1" "$console" && return 0
		node_runs "$2" || return 1
		sleep 0.1
	done
	return 1
}

# guest QEMU_OPTION...: the median of its passes in $rate, the faults between them in $n_faults.
guest() {
	local pid began=0 ended=0 passes
	console=$NODES_DIR/console
	: >"$console"
	WVM_RING_PATH=$NODES_DIR/ring.0 timeout 300 deploy/guest/run.sh "$qemu" \
		"wvm.mode=bench wvm.mib=${BENCH_MIB:-128}" -m "$mib" -smp 1 "$@" >"$console" 2>&1 \
		</dev/null &
	pid=$!
	await 'bench warm' "$pid" && began=$(counted) && await 'bench done' "$pid" && ended=$(counted)
	wait "$pid"
	mapfile -t passes < <(sed -n 's/^bench pass [0-9]*: \([0-9.]*\) M accesses.*/\1/p' "$console")
	if ((${#passes[@]} < 5)) || ! grep -q 'Power down' "$console"; then
		nodes_say "the guest with '$*' did not run to its end:"
		tail -n 5 "$console" >&2
		return 1
	fi
	rate=$(nodes_median "${passes[@]}")
	n_faults=$((ended - began))
}

# Faults so far, where nodes run.
counted() { if ((${#NODE_PIDS[@]})); then faults; else echo 0; fi; }

nodes_enter "$@"
if [[ ! -x $qemu || ! -s $BUILD/guest/vmlinux ]]; then
	nodes_say "no $qemu or no guest; run 'make qemu' first"
	exit 1
fi
cores="0 1 1"
(($(nproc) < 2)) && cores="0 0 0"
plain=() wavevm=() ratios=() faults=()
plain_guest() {
	guest -accel tcg -object "memory-backend-memfd,id=ram,size=${mib}M" \
		-machine memory-backend=ram || return 1
	plain+=("$rate")
}
wavevm_guest() {
	nodes_up "${mib}M" "$cores" || return 1
	guest -accel wavevm,mode=user,backend=tcg || return 1
	wavevm+=("$rate") faults+=("$n_faults")
	nodes_down
}
for ((i = 1; i <= pairs; i++)); do
	if ((i % 2)); then
		plain_guest && wavevm_guest || exit 1
	else
		wavevm_guest && plain_guest || exit 1
	fi
	ratios+=("$(awk "BEGIN { printf \"%.4f\", ${wavevm[-1]} / ${plain[-1]} }")")
	printf 'pair %d: tcg and memfd %s M accesses/s, wavevm %s, %s faults, ratio %s\n' "$i" \
		"${plain[-1]}" "${wavevm[-1]}" "${faults[-1]}" "${ratios[-1]}"
done
printf 'count guest_faults all-cores %s\n' "$(nodes_median "${faults[@]}")"
printf 'ratio guest-local all-cores %.3f\n' "$(nodes_median "${ratios[@]}")"
if [[ -n ${nodes_guest_json:-} ]]; then
	nodes_series guest-local "M accesses/s" "tcg and memfd" "${wavevm[*]}" "${plain[*]}" \
		"\"faults\": $(nodes_median "${faults[@]}")" >"$nodes_guest_json"
fi
