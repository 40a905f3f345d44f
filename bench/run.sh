#!/bin/bash
# Runs every benchmark on three nodes of its own, each layout of cores by itself.
#   bench/run.sh                 result: build/bench.json, and lines "ratio NAME LAYOUT VALUE"
# Environment: BUILD (default: build), ROUNDS (5), PAGES (2000), LAYOUTS ("one-core two-cores-sleeping
# two-cores-spinning"), GUEST=0 leaves the guest's boot out.
set -u
cd -- "$(dirname -- "$0")/.." || exit 1
# shellcheck source=bench/nodes.sh
. bench/nodes.sh
rounds=${ROUNDS:-5}
pages=${PAGES:-2000}

machine_json() {
	printf '"machine": {"kernel": "%s", "cpu": "%s", "cpus": %d, "commit": "%s"}' "$(uname -r)" \
		"$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n1 | tr -d '"')" "$(nproc)" \
		"$(git rev-parse --short HEAD 2>/dev/null)"
}

# layout NAME HOME_CORE FLOOR_OPTIONS MASTER_OPTION...: the measured node on core 0, the others
# on HOME_CORE, as the floor's home.
layout() {
	local name=$1 core=$2 floor=$3
	shift 3
	printf '\n== %s\n' "$name"
	nodes_up 1G "0 $core $core" "$@" || return 1
	"$NODES_BIN/wvmbench" fault --ring "$NODES_DIR/ring.0" --peer-ring "$NODES_DIR/ring.1" \
		--peer-ring "$NODES_DIR/ring.2" --threads 1,8 --rounds "$rounds" --pages "$pages" \
		--cores 0 --peer-cores "$core" --floor --floor-args "--cores 0,0,$core $floor" \
		--layout "$name" --json "$NODES_DIR/fault.$name" || return 1
	nodes_down
	[[ -n $floor ]] && return 0
	echo "floor with blocking sockets and reads instead of io_uring"
	"$NODES_BIN/wvm_floor" --blocking --cores "0,0,$core" --pages "$pages" || return 1
	"$NODES_BIN/wvm_floor" --blocking --cores "0,0,$core" --pages "$pages" --json \
		>"$NODES_DIR/blocking.$name"
}

# The results of all layouts as one JSON object.
write_json() {
	local name first=1
	printf '{%s,\n"layouts": {' "$(machine_json)"
	for name in $layouts; do
		((first)) || printf ','
		first=0
		printf '\n"%s": {"fault": ' "$name"
		cat "$NODES_DIR/fault.$name"
		if [[ -s $NODES_DIR/blocking.$name ]]; then
			printf ', "floor_blocking": '
			cat "$NODES_DIR/blocking.$name"
		fi
		printf '}'
	done
	printf '}'
	if [[ -s $NODES_DIR/guest-boot ]]; then
		printf ',\n"guest_boot": '
		cat "$NODES_DIR/guest-boot"
	fi
	printf '}\n'
}

nodes_enter "$@"
layouts=${LAYOUTS:-one-core two-cores-sleeping two-cores-spinning}
if (($(nproc) < 2)); then
	nodes_say "one processor: the layouts on two cores are left out"
	layouts=one-core
fi
for name in $layouts; do
	case $name in
	one-core) layout "$name" 0 "" ;;
	two-cores-sleeping) layout "$name" 1 "" ;;
	two-cores-spinning) layout "$name" 1 --spin --poll ;;
	*) nodes_say "no layout is called '$name'" && false ;;
	esac || exit 1
done
if [[ ${GUEST:-1} != 0 ]]; then
	printf '\n== guest boot\n'
	nodes_guest_json=$NODES_DIR/guest-boot bash bench/guest-boot.sh || exit 1
fi
write_json >"$BUILD/bench.json.new" && mv "$BUILD/bench.json.new" "$BUILD/bench.json"
printf '\nwritten: %s\n' "$BUILD/bench.json"
