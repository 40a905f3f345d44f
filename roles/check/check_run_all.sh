#!/bin/bash
# run_all.sh, over made-up programs: what it counts, and what it does not let pass.
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=../../deploy/check/lib.sh
. "$here/../../deploy/check/lib.sh"
trap 'rm -rf -- "$scratch"' EXIT
trap 'exit 1' INT TERM

# program NAME STATUS: one that prints what comes from standard input.
program() {
	local file=$scratch/check/$1
	mkdir -p "$scratch/check"
	{
		printf '#!/bin/sh\ncat <<"END"\n'
		cat
		printf 'END\nexit %d\n' "$2"
	} >"$file"
	chmod +x "$file"
}

# all REQUIRED WORD…: runs programs by their names; words with a dash stay as they are.
all() {
	local required=$1 words=() word
	shift
	for word in "$@"; do
		case $word in
		-*) words+=("$word") ;;
		*) words+=("$scratch/check/$word") ;;
		esac
	done
	run env BUILD="$scratch" V=0 JOBS=2 TEST_TIMEOUT=60 REQUIRE_PROOFS="$required" \
		"$here/run_all.sh" "${words[@]}"
}

last_line() { [ "${output##*$'\n'}" = "$1" ]; }
line() { grep -qxE -- "$1" <<<"$output"; }
no_line() { ! line "$1"; }

program good 0 <<END
proof: states explored: 7 of them
proof: steps: 12
2 passed, 0 failed
END
program bad 1 <<END
100%: Checks: 3, Failures: 1, Errors: 0
END
program unlucky 3 <<END
1 passed, 0 failed
END
program none 0 <<END
SKIPPED: none: needs the moon
END
program unproved 0 <<END
1 passed, 0 failed
END
program like 0 <<END
proof: more states explored: 7 of them
proof: more: proof: states explored: none
1 passed, 0 failed
END

all '' good
expect 'what passes, passes' 0 'states explored              7 of them'
holds 'the last line is the sum' last_line '2 passed, 0 failed'
holds 'the time of all is told' line 'took 0 min [0-9]+ s'

all '' good bad unlucky none
expect 'what fails, fails' 1 'bad: 1 failed, status 1'
expect 'who dies after its tests has failed' 1 'unlucky'
holds 'all are counted' last_line '5 passed, 2 failed'
expect 'what was skipped is told' 1 '1 programs were skipped'

all 'states explored,steps' good
expect 'rows that are there are not missed' 0 'states explored'
holds 'and cost nothing' last_line '2 passed, 0 failed'

all 'states explored,litmus,steps' good
expect 'a row that is not there fails the run' 1 'failed:'
holds 'in one line with its name' line 'missing from the table of what was tried: litmus'
holds 'the others are not said to be missing' no_line 'missing from .*: (states explored|steps)'
holds 'and counts as one' last_line '2 passed, 1 failed'

all 'states explored,steps' unproved
expect 'a table without any row misses all of them' 1 'missing from the table of what was tried: steps'
holds 'each counts' last_line '1 passed, 2 failed'

all 'states explored,litmus,steps' good none
expect 'where programs are skipped a row may be missing' 0 'missing from the table of what was tried: litmus'
holds 'and costs nothing' last_line '2 passed, 0 failed'
export NO_SKIPS=1
all '' good none
expect 'where none may be skipped that fails the run' 1 '1 programs were skipped, and none may be'
holds 'each of them' last_line '2 passed, 1 failed'
all '' good
expect 'and nothing else does' 0 'states explored'
unset NO_SKIPS

all 'states explored' like
holds 'no other name will do' last_line '1 passed, 1 failed'

all 'states explored' --computing good --waiting none
holds 'who runs beside others counts as well' last_line '2 passed, 0 failed'
finish
