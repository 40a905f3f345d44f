#!/bin/bash
# All fuzz targets for some seconds, and each with a bug to find, as part of make check.
set -u
cd -- "$(dirname -- "$0")/../.." || exit 1
run() {
	env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL make --no-print-directory BUILD="${BUILD:-build}" "$@"
}
run fuzz SECONDS="${FUZZ_SECONDS:-5}"
status=$?
run fuzz-teeth && exit $status
