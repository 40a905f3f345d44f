#!/bin/bash
# Fuzzes targets for a number of seconds each, $JOBS of them at a time.
#	shared/fuzz/run.sh SECONDS FOLDER/fuzz_NAME...
# What a target learns is kept in $BUILD/corpus/NAME and used again; an input that crashes it, in
# $BUILD/found/. Ends with the line "N passed, N failed".
set -u
cd -- "$(dirname -- "$0")/../.." || exit 1
BUILD=${BUILD:-build/fuzz} jobs=${JOBS:-$(nproc)} seconds=$1
shift
if [ $# = 0 ]; then
	echo 'fuzz: no such target' >&2
	exit 1
fi
log_dir=$BUILD/log
mkdir -p "$BUILD/found" "$log_dir"
export ASAN_OPTIONS=${ASAN_OPTIONS:-abort_on_error=1:detect_stack_use_after_return=1:quarantine_size_mb=16}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1:abort_on_error=1}

# One target, its output into its log.
fuzz() {
	local folder=${1%/*} name=${1##*/fuzz_} dict
	local dirs=("$BUILD/corpus/$name")
	mkdir -p "${dirs[0]}"
	for kept in "$folder/fuzz/corpus/$name" "$folder/fuzz/found/$name"; do
		[ -d "$kept" ] && dirs+=("$kept")
	done
	dict=$folder/fuzz/$name.dict
	[ -f "$dict" ] || dict=
	"$BUILD/target/$1" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=3000 \
		-max_len=8192 -print_final_stats=1 -verbosity=1 -artifact_prefix="$BUILD/found/$name-" \
		${dict:+-dict="$dict"} "${dirs[@]}" >"$log_dir/$name.log" 2>&1 </dev/null
	echo $? >"$log_dir/$name.status"
}

last() { grep -oE "$2" "$1" | tail -n 1 | grep -oE '[0-9]+$'; }

passed=0 failed=0 sum=0
report() {
	local name=${1##*/fuzz_} log runs covered found
	log=$log_dir/$name.log
	runs=$(last "$log" 'stat::number_of_executed_units: *[0-9]+')
	covered=$(last "$log" 'cov: [0-9]+')
	if [ "$(cat "$log_dir/$name.status")" = 0 ] && [ "${runs:-0}" -gt 0 ]; then
		passed=$((passed + 1))
		printf 'ok    %-28s %10d executions %6d edges\n' "$1" "$runs" "${covered:-0}"
	else
		failed=$((failed + 1))
		printf 'FAIL  %s\n' "$1"
		grep -avE '^(#[0-9]|INFO:)' "$log" | head -n 60 | sed 's/^/      | /'
		found=$(sed -n 's/.*Test unit written to //p' "$log" | tail -n 1)
		if [ -n "$found" ]; then
			echo "      input kept: $found"
			echo "      again:      $BUILD/target/$1 $found"
			echo "      as a test:  cp it into ${1%/*}/fuzz/found/$name/"
		fi
	fi
	sum=$((sum + ${runs:-0}))
}

for target in "$@"; do
	rm -f "$log_dir/${target##*/fuzz_}.status"
	while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n; done
	fuzz "$target" &
done
wait
names=
for target in "$@"; do
	report "$target"
	names="$names ${target##*/fuzz_}"
done
printf "proof: fuzz executions: %'d over %d targets (%s)\n" "$sum" $# "${names# }"
printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" = 0 ]
