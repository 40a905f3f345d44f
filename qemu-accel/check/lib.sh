# What the tests of QEMU share; sourced. The script has set passed=0 failed=0 only=PATTERN.

# $1 and what it started are ours; SIGKILL because a stopped QEMU may take nothing less.
end_process() { kill -KILL "$1" 2>/dev/null && wait "$1" 2>/dev/null; }

pass() {
	passed=$((passed + 1))
	echo "ok    $1"
}

fail() {
	failed=$((failed + 1))
	echo "FAIL  $1: $2"
	[ ! -s "${3:-}" ] || sed 's/^/      | /' "$3" | tail -n 20
}

# shellcheck disable=SC2154 # only: the script's
wanted() { [[ $1 =~ $only ]]; }

# Waits until file $1 has $4 (1) lines that match $2, for at most $3 seconds.
await_lines() {
	local n lines
	for ((n = 0; n < $3 * 10; n++)); do
		lines=$(grep -Ec "$2" "$1" 2>/dev/null) # nothing, if there is no such file yet
		[ "${lines:-0}" -ge "${4:-1}" ] && return 0
		sleep 0.1
	done
	return 1
}
