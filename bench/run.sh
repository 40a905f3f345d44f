#!/bin/bash
# Runs every benchmark on three nodes of its own, each layout of cores by itself, and writes
# $BUILD/bench: result.json, result.md and its plots (bench/report.py). While it runs: lines
# "ratio NAME LAYOUT VALUE".
#   bench/run.sh
# Environment: BUILD (default: build), ROUNDS (5), LAYOUTS ("one-core two-cores-sleeping
# two-cores-spinning two-shards"), PAGES (2000: of each kind of fault in a round), TOUCH_MIB and STREAM_MIB (1024),
# LOCAL_MIB (256), BENCH_SECONDS (3: a round of touch or stream is made smaller if it would take
# longer), RATE_MIB (64), RUNS (2000: of each kind of vcpu in a round), BENCHES (which of "fault
# explain touch stream local vcpu gateway shards capacity guest-boot guest-local guest-vcpus", and guest-swap, which is
# run only when it is named), GUEST=0 leaves the guests out.
set -u
cd -- "$(dirname -- "$0")/.." || exit 1
# shellcheck source=bench/nodes.sh
. bench/nodes.sh
rounds=${ROUNDS:-5}
pages=${PAGES:-2000}
touch_mib=${TOUCH_MIB:-1024} stream_mib=${STREAM_MIB:-1024} local_mib=${LOCAL_MIB:-256} rate_mib=${RATE_MIB:-64}
runs=${RUNS:-2000}
usual="fault explain touch stream local vcpu gateway shards capacity guest-boot guest-local guest-vcpus"
known=" $usual guest-swap "
benches=" ${BENCHES:-$usual} "

wanted() { [[ $benches == *" $1 "* ]]; }

# bulk NAME VM_MIB CPUS HOME_CORE LAYOUT MASTER_OPTIONS OPTION...: one of wvmbench's bulk commands, on
# fresh nodes.
bulk() {
	local name=$1 vm=$2 places=$3 core=$4 layout=$5 masters=$6 i nodes=()
	shift 6
	# shellcheck disable=SC2086 # a list of options
	nodes_up "$vm" "$places" $masters || return 1
	for i in 0 1 2; do
		nodes+=(--node "$NODES_SHM.$i:${NODE_PIDS[$i]}")
	done
	[[ $name == capacity ]] || nodes=()
	"$NODES_BIN/wvmbench" "$name" --ring "$NODES_DIR/ring.0" --peer-ring "$NODES_DIR/ring.1" \
		--core 0 --peer-core "$core" "${nodes[@]}" --rounds "$rounds" --layout "$layout" \
		--json "$NODES_DIR/part.$name.$layout" "$@" || return 1
	nodes_down
}

# vm_mib ROUND_MIB: a VM of which each round can take a fresh part.
vm_mib() { echo "$(((rounds + 1) * $1 + 64))M"; }

fault() {
	local name=$1 core=$2 floor=$3
	shift 3
	nodes_up 1G "0 $core $core" "$@" || return 1
	"$NODES_BIN/wvmbench" fault --ring "$NODES_DIR/ring.0" --peer-ring "$NODES_DIR/ring.1" \
		--peer-ring "$NODES_DIR/ring.2" --threads 1,8 --rounds "$rounds" --pages "$pages" \
		--cores 0 --peer-cores "$core" --floor --floor-args "--cores 0,0,$core $floor" \
		--layout "$name" --json "$NODES_DIR/part.fault.$name" || return 1
	nodes_down
	[[ -n $floor ]] && return 0
	echo "floor with blocking sockets and reads instead of io_uring"
	"$NODES_BIN/wvm_floor" --blocking --cores "0,0,$core" --pages "$pages" || return 1
	"$NODES_BIN/wvm_floor" --blocking --cores "0,0,$core" --pages "$pages" --json \
		>"$NODES_DIR/part.floor-blocking.$name"
}

# Where the time of a fault goes: bars beside the page, which shows them.
explain() {
	local name=$1 core=$2
	shift 2
	nodes_up 1G "0 $core $core" "$@" || return 1
	mkdir -p "$BUILD/bench" || return 1
	"$NODES_BIN/wvmbench" fault --explain="$BUILD/bench/explain-$name.svg" \
		--ring "$NODES_DIR/ring.0" --peer-ring "$NODES_DIR/ring.1" \
		--peer-ring "$NODES_DIR/ring.2" --rounds "$rounds" --pages "$pages" --cores 0 \
		--peer-cores "$core" --layout "$name" --json "$NODES_DIR/part.explain.$name" || return 1
	nodes_down
}

# Runs of a processor: its owner with node 0, slaves with nodes 1 and 2, where the floor has its echo.
# Slaves sleep also where masters spin (--poll): they share their masters' core, which they would keep from them.
vcpu() {
	local name=$1 core=$2 floor=$3
	shift 3
	nodes_up 64M "0 $core $core" "$@" || return 1
	nodes_slave 1 "$core"
	nodes_slave 2 "$core"
	"$NODES_BIN/wvmbench" vcpu --ring "$NODES_DIR/ring.0" --node 1 --move-to 2 --runs "$runs" \
		--rounds "$rounds" --core 0 --floor-args "--cores 0,0,$core $floor" --layout "$name" \
		--json "$NODES_DIR/part.vcpu.$name" || return 1
	nodes_down
}

# Messages through a gateway on the other core; it needs no nodes, and sleeps in every layout.
gateway() {
	"$NODES_BIN/wvmbench" gateway --floor --core 0 --gateway-core "$2" --rounds "$rounds" \
		--layout "$1" --json "$NODES_DIR/part.gateway.$1"
}

# layout NAME HOME_CORE FLOOR_OPTIONS MASTER_OPTION...: the measured node on core 0, the others
# on HOME_CORE, as the floor's home.
layout() {
	local name=$1 core=$2 floor=$3
	shift 3
	printf '\n== %s\n' "$name"
	local places="0 $core $core" masters="$*" seconds=(--seconds "${BENCH_SECONDS:-3}")
	if wanted fault; then
		fault "$name" "$core" "$floor" "$@" || return 1
	fi
	if wanted explain; then
		explain "$name" "$core" "$@" || return 1
	fi
	if wanted touch; then
		bulk touch "$(vm_mib "$touch_mib")" "$places" "$core" "$name" "$masters" \
			--mib "$touch_mib" "${seconds[@]}" || return 1
	fi
	if wanted stream; then
		bulk stream "$(vm_mib "$stream_mib")" "$places" "$core" "$name" "$masters" \
			--mib "$stream_mib" "${seconds[@]}" --floor-args "--cores 0,0,$core $floor" ||
			return 1
	fi
	if wanted local; then
		bulk local "$((local_mib + 64))M" "$places" "$core" "$name" "$masters" \
			--mib "$local_mib" || return 1
	fi
	if wanted vcpu; then
		vcpu "$name" "$core" "$floor" "$@" || return 1
	fi
	if wanted gateway && [[ -z $floor ]]; then
		gateway "$name" "$core" || return 1
	fi
}

# rate SHARDS CPUS: faults/s of 8 threads on both cores, of which masters have so many, in
# $read_rate and $write_rate.
rate() {
	local out
	nodes_up 2112M "$2 $2 $2" --cores "$1" || return 1
	out=$("$NODES_BIN/wvmbench" rate --ring "$NODES_DIR/ring.0" --peer-ring "$NODES_DIR/ring.1" \
		--threads 8 --cores 0,1 --mib "$rate_mib" --rounds 3 --layout two-shards) || return 1
	nodes_down
	read_rate=$(awk '/^count read_faults_per_s / { print $4 }' <<<"$out")
	write_rate=$(awk '/^count write_faults_per_s / { print $4 }' <<<"$out")
	[[ -n $read_rate && -n $write_rate ]]
}

# The same threads and cores; what differs is whether masters have one shard on core 0, or two on both.
two_shards() {
	local round turn read_rate write_rate read=() write=() read_base=() write_base=()
	printf '\n== two-shards\n'
	for ((round = 1; round <= rounds; round++)); do
		for turn in $((round % 2)) $(((round + 1) % 2)); do
			if ((turn)); then
				rate 1 0 || return 1
				read_base+=("$read_rate") write_base+=("$write_rate")
			else
				rate 2 0,1 || return 1
				read+=("$read_rate") write+=("$write_rate")
			fi
		done
		printf 'round %d: reads %.0f faults/s, one shard %.0f; writes %.0f, one shard %.0f\n' "$round" \
			"${read[-1]}" "${read_base[-1]}" "${write[-1]}" "${write_base[-1]}"
	done
	nodes_series two-shards-read faults/s "one shard" "${read[*]}" "${read_base[*]}" "" two-shards \
		>"$NODES_DIR/part.shards-read"
	nodes_series two-shards-write faults/s "one shard" "${write[*]}" "${write_base[*]}" "" two-shards \
		>"$NODES_DIR/part.shards-write"
	nodes_ratio two-shards-read two-shards "${read[*]}" "${read_base[*]}"
	nodes_ratio two-shards-write two-shards "${write[*]}" "${write_base[*]}"
}

nodes_enter "$@"
for name in $benches; do
	if [[ $known != *" $name "* ]]; then
		nodes_say "no benchmark is called '$name'; there are:$known"
		exit 1
	fi
done
if wanted vcpu && [[ ! -r /dev/kvm || ! -w /dev/kvm ]]; then
	nodes_say "no /dev/kvm here: runs of processors (vcpu) are left out"
	benches=${benches/ vcpu / }
fi
layouts=${LAYOUTS:-one-core two-cores-sleeping two-cores-spinning two-shards}
if (($(nproc) < 2)); then
	nodes_say "one processor: the layouts on two cores are left out"
	layouts=one-core
fi
for name in $layouts; do
	case $name in
	one-core) layout "$name" 0 "" ;;
	two-cores-sleeping) layout "$name" 1 "" ;;
	two-cores-spinning) layout "$name" 1 --spin --poll ;;
	two-shards) if wanted shards; then two_shards; fi ;;
	*) nodes_say "no layout is called '$name'" && false ;;
	esac || exit 1
done
if wanted capacity; then
	printf '\n== capacity\n'
	bulk capacity 1T "0 0 0" 0 1TiB "" || exit 1
fi
if [[ ${GUEST:-1} != 0 ]]; then
	for name in guest-boot guest-local guest-vcpus guest-swap; do
		wanted "$name" || continue
		printf '\n== %s\n' "$name"
		nodes_guest_json=$NODES_DIR/part.$name BOOTS=${BOOTS:-$rounds} PAIRS=${PAIRS:-$rounds} \
			ROUNDS=$rounds \
			bash "bench/$name.sh" || exit 1
	done
fi
printf '\n'
parts=("$NODES_DIR"/part.*)
if [[ ! -e ${parts[0]} ]]; then
	nodes_say "nothing was measured that can be compared"
	exit 1
fi
bench/report.py write "$BUILD/bench" "${parts[@]}" || exit 1
