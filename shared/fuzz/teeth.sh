#!/bin/bash
# Every fuzz target has to find a bug that is put in for it: a copy of a source file with one check
# taken out, linked in place of the right one, within a few seconds. make fuzz-teeth runs this with
#	CC   the compiler with all its flags     LIBS   archives and libraries
# Ends with the line "N passed, N failed".
set -u
cd -- "$(dirname -- "$0")/../.." || exit 1
BUILD=${BUILD:-build/fuzz} jobs=${JOBS:-$(nproc)} limit=${LIMIT:-240}
dir=$BUILD/teeth
rm -rf "$dir"
mkdir -p "$dir"
export ASAN_OPTIONS=abort_on_error=0:quarantine_size_mb=16

# target | how the target has the source: include or link | source | what is changed | in words
table() {
	cat <<'END'
shared/fuzz_wire|link|shared/wire.c|s/[*]bytes + [*]tag > len/*tag > len/|a length beyond the datagram is taken
shared/fuzz_conf|link|shared/conf_devices.c|s/if (bar.gpa & (bar.size - 1))/if (false)/|a BAR that is not aligned is taken
shared/fuzz_spsc|include|shared/spsc.c|s/align_up(length) > left)/false)/|a record may run beyond the ring
shared/fuzz_vcpu|link|shared/vcpu.c|s/ || at != len)/)/|bytes behind the last part are taken
shared/fuzz_forward|link|shared/forward.c|s/o->len + len > f->mtu/o->len + len > f->mtu + 64/|a datagram may be longer than the mtu
shared/fuzz_membership|link|shared/membership.c|s/while (!m->saving \&\& wvm_epoch_next/while (wvm_epoch_next/|a ballot leaves before its state is stored
shared/core/fuzz_core|link|shared/core/home.c|s/|| record == WVM_NIL ||/||/|who holds nothing may acknowledge
shared/core/fuzz_cluster|link|shared/core/holder.c|/^	wvm_core_emit(core, WVM_ACT_PROTECT, d->vm, d->page);/d|an owner that gives up goes on storing
shared/core/fuzz_death|link|shared/core/rebuild.c|s/e->granted = member + 1;/e->granted = member + 100000;/|who is waited for is no member
shared/core/fuzz_epoch|link|shared/core/epoch.c|s/if (e->d.accepted != m->ballot) {/if (true) {/|a second record at the same ballot is accepted
shared/core/fuzz_gossip|link|shared/core/gossip_view.c|s/if (((s - at) & g->mask) < ((s - hole) & g->mask))/if (s - at < 9999)/|a peer behind one that is forgotten is lost
roles/master/fuzz_clients|include|roles/master/clients_attach.c|s/st.st_size == (off_t)bytes/true/|a channel may have any size
roles/master/fuzz_vcpus|link|roles/master/vcpus.c|s/if (msg.payload_len != len - sizeof(msg))/if (false)/|a record may have less than its message says
roles/master/fuzz_control|include|roles/master/control.c|s/part = is->len - at < WVM_CONTROL_PART ? is->len - at : WVM_CONTROL_PART;/part = WVM_CONTROL_PART;/|the last part has the length of the others
roles/master/fuzz_state|link|roles/master/state.c|s/i && i + 1 == len &&/i \&\&/|a boot file may hold more than a number
roles/ctl/fuzz_ask|include|roles/ctl/ask.c|s/if (len < WVM_CONTROL_HEADER_BYTES)/if (!len)/|an answer may be shorter than its header
roles/ctl/fuzz_top|link|roles/ctl/top_sample.c|s/text\[i\] >= ' ' && text\[i\] <= '~'/true/|control characters reach the terminal
END
}

# Builds a target with its bug; says what the trouble is and fails if it cannot.
plant() {
	local target=$1 how=$2 source=$3 change=$4 at=$5
	local file=${target%/*}/fuzz/${target##*/}.c
	mkdir -p "$at/${source%/*}"
	sed "$change" "$source" >"$at/$source"
	if cmp -s "$source" "$at/$source"; then
		echo "$source is not as the bug expects it: $change"
		return 1
	fi
	local parts=("$file")
	[ "$how" = link ] && parts+=("$at/$source")
	# shellcheck disable=SC2086
	$CC '-DWVM_VERSION="planted"' -iquote "$at" -fsanitize=fuzzer "${parts[@]}" -o "$at/target" $LIBS
}

bite() {
	local target=$1 what=$5 at=$dir/${1##*/} start=$SECONDS
	local name=${target##*/fuzz_} kept=()
	mkdir -p "$at/found" "$at/learned"
	if ! plant "$target" "$2" "$3" "$4" "$at" >"$at/log" 2>&1; then
		printf 'FAIL  %-26s cannot be built:\n' "$target"
		sed 's/^/      | /' "$at/log"
		return
	fi
	kept=("$at/learned" "${target%/*}/fuzz/corpus/$name") # the first is written to
	start=$SECONDS
	if "$at/target" -max_total_time="$limit" -timeout=20 -rss_limit_mb=3000 -max_len=4096 \
		-artifact_prefix="$at/found/" "${kept[@]}" >"$at/log" 2>&1 </dev/null; then
		printf 'FAIL  %-26s not found in %d s: %s\n' "$target" "$limit" "$what"
	else
		printf 'ok    %-26s found in %2d s: %s\n' "$target" $((SECONDS - start)) "$what"
	fi
}

while IFS='|' read -r target how source rest; do
	# The change may hold the separator.
	what=${rest##*|} change=${rest%|*}
	while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n; done
	bite "$target" "$how" "$source" "$change" "$what" >"$dir/${target##*/}.result" </dev/null &
done < <(table)
wait
cat "$dir"/*.result
passed=$(cat "$dir"/*.result | grep -c '^ok')
failed=$(cat "$dir"/*.result | grep -c '^FAIL')
printf 'proof: planted bugs found by fuzzing: %d of %d\n' "$passed" $((passed + failed))
printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" = 0 ] && [ "$passed" = "$(table | wc -l)" ]
