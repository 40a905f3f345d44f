#!/bin/bash
# Runs test programs and scripts and sums up.
#   roles/check/run_all.sh PROGRAM... [--computing PROGRAM...] [--waiting PROGRAM...]
# Ends with the line "N passed, N failed". Those that compute, and share nothing with any other, run first,
# $JOBS at a time and with less priority; beside them those that wait for most of their time, one by one:
# they share ports and the like. Then all others, each alone: they measure, or need the processors themselves.
# A program is a libcheck one, or a script whose last line is "N passed, N failed". What a failing one
# printed is shown; logs are in $BUILD/check/log. V=1 shows everything. What programs print as
# "proof: NAME: TEXT" comes together in a table at the end; a name of $REQUIRE_PROOFS (with commas between)
# that is in no row of it is a failure, unless programs were skipped. NO_SKIPS=1: these are failures, too.
set -u
cd -- "$(dirname -- "$0")/../.." || exit 1
BUILD=${BUILD:-build}
log_dir=$BUILD/check/log
mkdir -p "$log_dir"
passed=0 failed=0 skipped=0 limit=${TEST_TIMEOUT:-600} jobs=${JOBS:-$(nproc)}
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

name_of() { echo "${1#"$BUILD"/check/}"; }
log_of() { echo "$log_dir/$(name_of "$1" | tr / -).log"; }

# sum_up PROGRAM STATUS SECONDS: counts what is in its log, and says how it went.
sum_up() {
	local name log status=$2
	name=$(name_of "$1") log=$(log_of "$1")
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
		printf 'ok    %-44s %5d tests %4d s\n' "$name" "$count_ok" "$3"
		grep -aiE '^(skip|# skip)' "$log"
	else
		printf 'FAIL  %-44s %5d failed, status %d\n' "$name" "$count_bad" "$status"
		failures+=("$name: $count_bad failed, status $status, see $log")
		mapfile -t -O "${#failures[@]}" failures < <(grep -aE ':[FE]:|^FAIL|^replay: ' "$log" | head -n 20 | sed 's/^/    /')
		tail -n 60 "$log" | sed 's/^/      | /'
	fi
}

# Whether a row of that name is in the table.
is_proved() {
	local line
	for line in "${proofs[@]}"; do
		[[ $line != "proof: $1: "* ]] || return 0
	done
	return 1
}

run_alone() {
	local log status start=$SECONDS
	log=$(log_of "$1")
	if [ "${V:-0}" = 0 ]; then
		timeout -k 10 "$limit" "$1" >"$log" 2>&1 </dev/null
		status=$?
	else
		timeout -k 10 "$limit" "$1" 2>&1 </dev/null | tee "$log"
		status=${PIPESTATUS[0]}
	fi
	sum_up "$1" "$status" $((SECONDS - start))
}

# Programs that run beside others, by process: what each is, when it began, whether it waits.
declare -A beside=() began=() waits=()
computing_now=0 waiting_now=0

# begin WAITS PROGRAM: a shell has its children in the background ignore SIGINT; ours may need it. What
# shares the processors takes longer, and has twice the time.
begin() {
	local how=(nice -n 5)
	[ "$1" = 0 ] || how=()
	env --default-signal=INT,QUIT "${how[@]}" timeout -k 10 $((2 * limit)) "$2" \
		>"$(log_of "$2")" 2>&1 </dev/null &
	beside[$!]=$2 began[$!]=$SECONDS waits[$!]=$1
	[ "$1" = 0 ] && computing_now=$((computing_now + 1)) || waiting_now=$((waiting_now + 1))
}

# Waits for one of them to end.
await() {
	local pid status
	wait -n -p pid "${!beside[@]}"
	status=$?
	[ "${V:-0}" = 0 ] || cat "$(log_of "${beside[$pid]}")"
	sum_up "${beside[$pid]}" "$status" $((SECONDS - began[$pid]))
	[ "${waits[$pid]}" = 0 ] && computing_now=$((computing_now - 1)) || waiting_now=$((waiting_now - 1))
	unset "beside[$pid]"
}

run_beside() {
	local c=0 w=0
	while :; do
		while [ "$computing_now" -lt "$jobs" ] && [ "$c" -lt "${#computing[@]}" ]; do
			begin 0 "${computing[c++]}"
		done
		if [ "$waiting_now" = 0 ] && [ "$w" -lt "${#waiting[@]}" ]; then
			begin 1 "${waiting[w++]}"
		fi
		[ "${#beside[@]}" != 0 ] || return
		await
	done
}

# timeout passes it on to all that it started.
end_beside() { [ "${#beside[@]}" = 0 ] || kill -TERM "${!beside[@]}" 2>/dev/null; }
trap end_beside EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

alone=() computing=() waiting=()
declare -n list=alone
for word in "$@"; do
	case $word in
	--computing) declare -n list=computing ;;
	--waiting) declare -n list=waiting ;;
	*) list+=("$word") ;;
	esac
done
run_beside
for program in "${alone[@]}"; do
	run_alone "$program"
done
if [ "${#proofs[@]}" != 0 ]; then
	printf '\n%-28s %s\n' 'what was tried' 'figures of this run'
	for line in "${proofs[@]}"; do
		line=${line#proof: }
		printf '%-28s %s\n' "${line%%: *}" "${line#*: }"
	done
	printf '\n'
fi
# What no program says it has tried has not been tried.
IFS=, read -ra required <<<"${REQUIRE_PROOFS:-}"
for name in "${required[@]}"; do
	is_proved "$name" && continue
	missing="missing from the table of what was tried: $name"
	if [ "$skipped" != 0 ]; then
		printf '%s\n' "$missing"
		continue
	fi
	failed=$((failed + 1))
	failures+=("$missing")
done
[ "$skipped" = 0 ] || printf '%d programs were skipped, see above\n' "$skipped"
if [ "$skipped" != 0 ] && [ "${NO_SKIPS:-0}" != 0 ]; then
	failed=$((failed + skipped))
	failures+=("$skipped programs were skipped, and none may be")
fi
# Once more at the end, where they are found also when the rest is cut off.
if [ "$failed" != 0 ]; then
	printf 'failed:\n'
	printf '%s\n' "${failures[@]}"
fi
printf 'took %d min %d s\n' $((SECONDS / 60)) $((SECONDS % 60))
printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" = 0 ]
