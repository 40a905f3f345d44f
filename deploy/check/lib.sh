# Sourced by the checks of this folder: counts, a scratch directory, a summary.
# shellcheck shell=bash
set -u

passed=0
failed=0
# shellcheck disable=SC2034 # for those who source this
scratch=$(mktemp -d)
output=
status=0

# run COMMAND…: its output (both streams) into $output, its exit status into $status.
run() {
	output=$("$@" 2>&1)
	status=$?
}

# verdict NAME RESULT: counts a result of 0 as passed.
verdict() {
	if [ "$2" -eq 0 ]; then
		passed=$((passed + 1))
		printf 'ok      %s\n' "$1"
	else
		failed=$((failed + 1))
		printf 'FAILED  %s\n        status %s, output: %s\n' "$1" "$status" "$output"
	fi
}

# expect NAME STATUS TEXT: the last run ended with STATUS and printed TEXT.
expect() {
	[ "$status" -eq "$2" ] && [[ $output == *"$3"* ]]
	verdict "$1" $?
}

# holds NAME COMMAND…: the command succeeds.
holds() {
	local name=$1
	shift
	"$@"
	verdict "$name" $?
}

# finish: the last line, and the exit status.
finish() {
	printf '%s passed, %s failed\n' "$passed" "$failed"
	[ "$failed" -eq 0 ]
}
