#!/bin/bash
# A node that lends memory only is killed for good while a guest uses all of its memory: the guest goes on, and every
# byte that it verifies is right. By the demo, in network namespaces; root.
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$here/lib.sh"
trap 'rm -rf -- "$scratch"' EXIT

says() { grep -Eq -- "$1" <<<"$output"; }

run env LENDS=1 MEM=192 VISITS=200 SECONDS_STRESS=25 TIMEOUT=300 SEED="${SEED:-1}" "$here/../demo/run.sh"
expect 'a guest outlives a node that lends memory' 0 ''
holds 'it homed some of the memory' says 'node 4 killed for good, home of [1-9][0-9]* pages'
holds 'others took its place while the guest ran' says 'node 4 taken out, others have its pages'
holds 'all that the guest has verified is right' says '^verified [1-9][0-9]* MiB, 0 errors'
finish
