#!/bin/bash
# bench/run.sh from end to end, small, in one layout and without guests: each benchmark runs on real
# masters, verifies what it reads, and its figures arrive in the result.
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$(dirname "$here")")
# shellcheck source-path=SCRIPTDIR source=../../deploy/check/lib.sh
. "$root/deploy/check/lib.sh"
trap 'rm -rf -- "$scratch"' EXIT
trap 'exit 1' INT TERM
cd "$root" || exit 1
BUILD=$(realpath -m -- "${BUILD:-build}")

# The results go to a folder of their own; the programs are the built ones.
mkdir "$scratch/build"
ln -s "$BUILD/bin" "$scratch/build/bin"
# With few PAGES many of them are read ahead by chance (plan_order(), bench/wvmbench/plan.h).
small() {
	env BUILD="$scratch/build" LAYOUTS=one-core GUEST=0 ROUNDS=3 PAGES=2000 TOUCH_MIB=4 \
		STREAM_MIB=4 LOCAL_MIB=4 RUNS=100 "$@" bench/run.sh
}
result=$scratch/build/bench/result.json

# figure NAME UNIT LAYOUT: it is in the result with three rounds.
figure() {
	python3 - "$result" "$@" <<-'END'
		import json, sys
		path, name, unit, layout = sys.argv[1:]
		found = [s for p in json.load(open(path))["parts"] if p.get("layout") == layout
		         for s in p.get("series", []) if s["name"] == name]
		sys.exit(not (len(found) == 1 and found[0]["unit"] == unit and len(found[0]["ours"]) == 3
		              and len(found[0]["base"]) == 3 and min(found[0]["ours"] + found[0]["base"]) > 0))
	END
}

# counted PROGRAM NAME LEAST MOST: a count of it is in the result.
counted() {
	python3 - "$result" "$@" <<-'END'
		import json, sys
		path, program, name, least, most = sys.argv[1:]
		found = [p["counts"][name] for p in json.load(open(path))["parts"]
		         if p["program"] == "wvmbench " + program]
		sys.exit(not (len(found) == 1 and float(least) <= found[0] <= float(most)))
	END
}

# lacks NAME TEXT: the last run did not print it.
lacks() {
	[[ $output != *"$2"* ]]
	verdict "$1" $?
}

run small
expect "all benchmarks run" 0 "ratio local one-core"
for name in local-miss zero-page remote-read remote-write remote-write-upgrade; do
	holds "$name is in the result" figure "$name" us one-core
done
holds "the rate of 8 threads is in the result" figure rate-8-threads faults/s one-core
holds "where the time of a fault goes is in the result" \
	counted "fault --explain" "remote-read: wire back and receive, us" 0.1 100000
holds "system calls of a fault are in the result" \
	counted "fault --explain" "remote-read: system calls, requester" 1 100
holds "the page shows its bars" grep -q '(explain-one-core.svg)' "$scratch/build/bench/result.md"
holds "and they are drawn" grep -q '</svg>' "$scratch/build/bench/explain-one-core.svg"
holds "first touch is in the result" figure first-touch MiB/s one-core
holds "the stream is in the result" figure remote-stream MiB/s one-core
holds "the raw stream is in the result" figure remote-stream-raw MiB/s one-core
holds "the placed stream is in the result" figure remote-stream-placed MiB/s one-core
holds "local memory is in the result" figure local "M accesses/s" one-core
# Every page of first touch is at most one fault, and somebody has to ask for each unit.
holds "first touch took faults" counted touch faults_per_round 2 1030
holds "the stream took faults" counted stream faults_per_round 2 1030
holds "local memory took none" counted local faults 0 0
if [[ -r /dev/kvm && -w /dev/kvm ]]; then
	for name in vcpu-empty vcpu-pio vcpu-mmio vcpu-state vcpu-move; do
		holds "$name is in the result" figure "$name" us one-core
	done
	holds "an access to a port takes few bytes" counted vcpu "vcpu-pio: bytes sent" 48 600
	holds "a move has the whole state" counted vcpu "vcpu-move: bytes sent" 200 65536
	holds "the page says what a run may be" grep -q '| vcpu-pio | one-core | 3 .*at most 1 ' \
		"$scratch/build/bench/result.md"
else
	echo "SKIPPED: runs of processors: there is no /dev/kvm"
fi
holds "a terabyte was mapped" counted capacity vm_gib 1024 1024
holds "a shared page takes an entry of the directory" \
	counted capacity directory_bytes_per_tracked_page 64 200
holds "a program that maps a terabyte takes something" counted capacity start_mib 1 100000
holds "the page names the figures" grep -q '| first-touch | one-core | 3 |' \
	"$scratch/build/bench/result.md"
run bench/report.py compare "$result" "$result"
expect "a result does not differ from itself" 0 "no difference shown"
lacks "a result is neither faster nor slower than itself" faster
lacks "and not slower" slower

rm -rf "$scratch/build/bench"
run small BENCHES="touch" ROUNDS=1
expect "one benchmark can be run alone" 0 "ratio first-touch one-core"
lacks "without the others" "ratio local"
run small LAYOUTS=two-shards RATE_MIB=8
expect "one shard and two are compared" 0 "ratio two-shards-write two-shards"
holds "reads are in the result" figure two-shards-read faults/s two-shards
holds "writes are in the result" figure two-shards-write faults/s two-shards
run small LAYOUTS=three-cores
expect "an unknown layout is refused" 1 "no layout is called 'three-cores'"
run small BENCHES="touhc"
expect "an unknown benchmark is refused" 1 "no benchmark is called 'touhc'"
finish
