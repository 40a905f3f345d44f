#!/bin/bash
# What of the protocol core its tests cover, as part of make check.
set -u
cd -- "$(dirname -- "$0")/../../.." || exit 1
exec env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL make --no-print-directory \
	BUILD="${BUILD:-build}" coverage
