#!/bin/bash
# Compares a guest's boot to power-off under -accel wavevm, its memory homed on
# three nodes, with the same QEMU under plain TCG: pairs of boots, the nodes fresh for each.
#   bench/guest-boot.sh          prints the boots, faults, us per fault, and "ratio guest-boot ..."
# Environment: BUILD (default: build), BOOTS (5), GUEST_MIB (512), GUEST_CPUS (2),
# nodes_guest_json (a file for the result as JSON). Needs qemu-accel/build.sh and
# deploy/guest/build.sh to have run.
set -u
cd -- "$(dirname -- "$0")/.." || exit 1
# shellcheck source=bench/nodes.sh
. bench/nodes.sh
boots=${BOOTS:-5}
mib=${GUEST_MIB:-512}
qemu=$BUILD/qemu/qemu-system-x86_64

# boot ACCELERATOR: seconds from start to power-off in $seconds.
boot() {
	local log=$NODES_DIR/console began=${EPOCHREALTIME/,/.}
	WVM_RING_PATH=$NODES_DIR/ring.0 timeout 300 deploy/guest/run.sh "$qemu" wvm.mode=boot \
		-accel "$1" -m "$mib" -smp "${GUEST_CPUS:-2}" >"$log" 2>&1 </dev/null
	local status=$? ended=${EPOCHREALTIME/,/.}
	if ((status != 0)) || ! grep -q 'mode boot' "$log" || ! grep -q 'Power down' "$log"; then
		nodes_say "the guest under '$1' did not boot and power off (status $status):"
		tail -n 5 "$log" >&2
		return 1
	fi
	seconds=$(awk "BEGIN { printf \"%.3f\", $ended - $began }")
}

nodes_enter "$@"
if [[ ! -x $qemu || ! -s $BUILD/guest/vmlinux ]]; then
	nodes_say "no $qemu or no guest; run 'make qemu' first"
	exit 1
fi
cores="0 1 1"
(($(nproc) < 2)) && cores="0 0 0"
plain=() wavevm=() ratios=() faults=()
for ((i = 1; i <= boots; i++)); do
	boot tcg || exit 1
	plain+=("$seconds")
	nodes_up "${mib}M" "$cores" || exit 1
	boot "wavevm,mode=user,backend=tcg" || exit 1
	wavevm+=("$seconds")
	faults+=($(($(nodes_counter 0 faults_read) + $(nodes_counter 0 faults_write))))
	nodes_down
	ratios+=("$(awk "BEGIN { printf \"%.4f\", ${wavevm[-1]} / ${plain[-1]} }")")
	printf 'boot %d: tcg %s s, wavevm %s s, %s faults\n' "$i" "${plain[-1]}" "${wavevm[-1]}" \
		"${faults[-1]}"
done
ratio=$(nodes_median "${ratios[@]}")
n=$(nodes_median "${faults[@]}")
each=$(awk "BEGIN { n = $n; printf \"%.1f\", n ? ($(nodes_median "${wavevm[@]}") - $(nodes_median "${plain[@]}")) * 1e6 / n : 0 }")
printf 'median: tcg %s s, wavevm %s s, %s faults, %s us per fault\n' "$(nodes_median "${plain[@]}")" \
	"$(nodes_median "${wavevm[@]}")" "$n" "$each"
printf 'ratio guest-boot all-cores %.3f\n' "$ratio"
if [[ -n ${nodes_guest_json:-} ]]; then
	nodes_series guest-boot s tcg "${wavevm[*]}" "${plain[*]}" \
		"\"faults\": $n, \"us_per_fault\": $each" >"$nodes_guest_json"
fi
