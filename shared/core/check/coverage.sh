#!/bin/bash
# Runs test programs built with COVERAGE=1 and prints what of the protocol core they covered.
#	shared/core/check/coverage.sh PROGRAM...
# $JOBS of them run at a time: libgcov locks a file of counts while it adds to it. Fails below 95 % of
# lines or 85 % of branches. Ends with the line "N passed, N failed".
# Measured are the objects of shared/core itself, as libshared.a has them: neither tests, simulator
# and explorer, nor the broken cores that some tests are made of. Nothing is excluded: the branch of
# an assertion that fails counts as one not taken, although no test can take it.
set -u
cd -- "$(dirname -- "$0")/../../.." || exit 1
BUILD=${BUILD:-build/coverage} jobs=${JOBS:-$(nproc)} lines_min=950 branches_min=850 # per mille
info=$BUILD/core.info
passed=0 failed=0 failures=
# Limits are there to end what hangs, for programs with optimization; the core here has none.
export CK_DEFAULT_TIMEOUT=${CK_DEFAULT_TIMEOUT:-120} CK_TIMEOUT_MULTIPLIER=4

# What a program prints, to its log; where it fails the log's end is shown, too.
logged() {
	"${@:2}" >"$1" 2>&1 && return
	local status=$?
	tail -n 20 "$1"
	echo "status $status"
	return 1
}

verdict() {
	if "${@:2}"; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
		failures+="FAIL  $1"$'\n'
	fi
}

find "$BUILD/obj" -name '*.gcda' -delete
rm -f -- "$BUILD"/*.status # of a run before: who leaves none has failed
running=0
for program in "$@"; do
	if [ "$running" -ge "$jobs" ]; then
		wait -n
		running=$((running - 1))
	fi
	log=$BUILD/${program##*/}.log
	(logged "$log" timeout -k 10 600 "$program" >"$log.end"; echo $? >"$log.status") &
	running=$((running + 1))
done
wait
for program in "$@"; do
	log=$BUILD/${program##*/}.log
	cat "$log.end"
	verdict "$program, see $log" [ "$(cat "$log.status")" = 0 ]
done
if ! lcov --quiet --rc lcov_branch_coverage=1 --no-recursion --capture --base-directory . \
	--directory "$BUILD/obj/shared/core" --output-file "$info.raw" >"$BUILD/lcov.log" 2>&1 ||
	! lcov --quiet --rc lcov_branch_coverage=1 --add-tracefile "$info.raw" \
		--output-file "$info" >>"$BUILD/lcov.log" 2>&1; then
	cat "$BUILD/lcov.log"
	echo "${failures}FAIL  lcov, see $BUILD/lcov.log"
	echo "$passed passed, $((failed + 1)) failed"
	exit 1
fi
genhtml --quiet --branch-coverage --output-directory "$BUILD/html" "$info" >"$BUILD/genhtml.log" 2>&1

# A table by file, then what was not reached: lines, and branches as line(taken of all).
awk -F'[:,]' -v top="$PWD/" '
	function percent(hit, all) { return all ? sprintf("%.1f %%", 100 * hit / all) : "-" }
	function row(name, l, lh, b, bh) {
		printf "%-28s %5d of %5d %8s   %5d of %5d %8s\n", name, lh, l, percent(lh, l), bh, b,
			percent(bh, b)
	}
	BEGIN { printf "%-28s %14s %8s   %14s %8s\n", "file", "lines", "", "branches", "" }
	/^SF:/ { file = substr($0, 4); sub(top, "", file); l = lh = b = bh = 0; bad = ""; split("", at)
		split("", hit); n = 0 }
	/^DA:/ { l++; if ($3 > 0) lh++; else bad = bad " " $2 }
	/^BRDA:/ { b++; if (!($2 in at)) order[++n] = $2; at[$2]++
		if ($5 != "-" && $5 > 0) { bh++; hit[$2]++ } }
	/^end_of_record/ {
		row(file, l, lh, b, bh)
		L += l; LH += lh; B += b; BH += bh
		if (bad != "") missed = missed sprintf("%s: lines%s\n", file, bad)
		bad = ""
		for (i = 1; i <= n; i++)
			if (hit[order[i]] + 0 < at[order[i]])
				bad = bad sprintf(" %s(%d of %d)", order[i], hit[order[i]], at[order[i]])
		if (bad != "") missed = missed sprintf("%s: branches%s\n", file, bad)
	}
	END {
		row("shared/core", L, LH, B, BH)
		printf "\nnot reached:\n%s", missed
		printf "%d %d\n", L ? 1000 * LH / L : 0, B ? 1000 * BH / B : 0 >"/dev/stderr"
	}' "$info" 2>"$BUILD/total"
read -r lines branches <"$BUILD/total"
echo
echo "report: $BUILD/html/index.html (failing assertions are counted as branches that are not taken)"
verdict "lines are below $((lines_min / 10)) %" [ "${lines:-0}" -ge $lines_min ]
verdict "branches are below $((branches_min / 10)) %" [ "${branches:-0}" -ge $branches_min ]
printf 'proof: coverage of shared/core: %d.%d %% of lines, %d.%d %% of branches\n' \
	$((lines / 10)) $((lines % 10)) $((branches / 10)) $((branches % 10))
printf '%s%d passed, %d failed\n' "$failures" "$passed" "$failed"
[ "$failed" = 0 ]
