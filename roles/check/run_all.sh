#!/bin/bash
# Runs test programs and scripts one after the other and sums up.
#   roles/check/run_all.sh PROGRAM...       ends with the line "N passed, N failed"
# A program is a libcheck one, or a script whose last line is "N passed, N failed". What a failing one
# printed is shown; logs are in $BUILD/check/log. V=1 shows everything. What programs print as
# "proof: NAME: TEXT" comes together in a table at the end.
set -u
cd -- "$(dirname -- "$0")/../.." || exit 1
BUILD=${BUILD:-build}
log_dir=$BUILD/check/log
mkdir -p "$log_dir"
passed=0 failed=0 skipped=0 limit=${TEST_TIMEOUT:-600}
proofs=() failures=()
# libcheck's own limit of 4 s is for machines that do nothing else; ours only ends what hangs.
export CK_DEFAULT_TIMEOUT=${CK_DEFAULT_TIMEOUT:-120}

# Sets count_ok and count_bad from a log.
count() {
	count_ok=0 count_bad=0
	local line ok bad checks failures errors
	while read -r line; do
		if [[ $line =~ Checks:\ ([0-9]+),\ Failures:\ ([0-9]+),\ Errors:\ ([0-9]+) ]]; then
			checks=${BASH_REMATCH[1]} failures=${BASH_REMATCH[2]} errors=${BASH_REMATCH[3]}
			count_bad=$((count_bad + failures + errors))
			count_ok=$((count_ok + checks - failures - errors))
		elif [[ $line =~ ^([a-z_]+:\ )?([0-9]+)\ passed,\ ([0-9]+)\ failed ]]; then
			ok=${BASH_REMATCH[2]} bad=${BASH_REMATCH[3]}
			count_ok=$((count_ok + ok))
			count_bad=$((count_bad + bad))
		fi
	done < <(grep -aE 'Checks: |passed, ' "$1")
}

run() {
	local name=${1#"$BUILD"/check/} log status start=$SECONDS
	log=$log_dir/$(tr / - <<<"$name").log
	if [ "${V:-0}" = 0 ]; then
		timeout -k 10 "$limit" "$1" >"$log" 2>&1 </dev/null
		status=$?
	else
		timeout -k 10 "$limit" "$1" 2>&1 </dev/null | tee "$log"
		status=${PIPESTATUS[0]}
	fi
	count "$log"
	mapfile -t -O "${#proofs[@]}" proofs < <(grep -ahE '^proof: [^:]+: ' "$log")
	# A program that says nothing, or dies after its tests, has failed.
	if [ "$status" != 0 ] && [ "$count_bad" = 0 ]; then
		count_bad=1
	elif [ $((count_ok + count_bad)) = 0 ] && grep -aq '^SKIPPED: ' "$log"; then
		printf 'skip  %-44s %s\n' "$name" "$(sed -n 's/^SKIPPED: //p' "$log" | head -n 1)"
		skipped=$((skipped + 1))
		return
	elif [ $((count_ok + count_bad)) = 0 ]; then
		count_bad=1
	fi
	passed=$((passed + count_ok))
	failed=$((failed + count_bad))
	if [ "$count_bad" = 0 ]; then
		printf 'ok    %-44s %5d tests %4d s\n' "$name" "$count_ok" $((SECONDS - start))
		grep -aiE '^(skip|# skip)' "$log"
	else
		printf 'FAIL  %-44s %5d failed, status %d\n' "$name" "$count_bad" "$status"
		failures+=("$name: $count_bad failed, status $status, see $log")
		mapfile -t -O "${#failures[@]}" failures < <(grep -aE ':[FE]:|^FAIL' "$log" | head -n 20 | sed 's/^/    /')
		tail -n 60 "$log" | sed 's/^/      | /'
	fi
}

for program in "$@"; do
	run "$program"
done
if [ "${#proofs[@]}" != 0 ]; then
	printf '\n%-28s %s\n' 'what was tried' 'figures of this run'
	for line in "${proofs[@]}"; do
		line=${line#proof: }
		printf '%-28s %s\n' "${line%%: *}" "${line#*: }"
	done
	printf '\n'
fi
[ "$skipped" = 0 ] || printf '%d programs were skipped, see above\n' "$skipped"
# Once more at the end, where they are found also when the rest is cut off.
if [ "$failed" != 0 ]; then
	printf 'failed:\n'
	printf '%s\n' "${failures[@]}"
fi
printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" = 0 ]
