#!/bin/bash
# What `make install` puts below DESTDIR, `make uninstall` takes away again, and nothing else.
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$here/lib.sh"
trap 'rm -rf -- "$scratch"' EXIT

root=$scratch/root

in_tree() { make -s -C "$here/../.." DESTDIR="$root" PREFIX=/opt/w UNITDIR=/etc/units "$@"; }
files() { (cd -- "$root" && find . -type f | sort); }
is_gone() { [ ! -e "$root/$1" ]; }

# Files of others, in every directory that install puts something into, some with names like ours.
others() {
	local dir
	for dir in opt/w/{bin,lib,include,share/man/man{1,8},share/qemu,share/wavevm/topologies/routes} \
		etc/units; do
		mkdir -p -- "$root/$dir" && echo mine >"$root/$dir/wvm_mine" || return 1
	done
	echo mine >"$root/opt/w/bin/wvm-host.old"
}

run in_tree install
expect 'make install' 0 ''
first=$(files)
for file in bin/wavevm_node_master bin/wvm-host lib/libwavevm.a include/wavevm.h share/man/man8/wvm_ctl.8 \
	share/wavevm/topologies/routes/pod.routes; do
	holds "$file is there" test -f "$root/opt/w/$file"
done
holds 'units are where UNITDIR says' test -f "$root/etc/units/wavevm-master@.service"
run in_tree uninstall
expect 'make uninstall' 0 ''
output=$(files)
holds 'leaves no file' test -z "$output"
holds 'nor the directory that is ours alone' is_gone opt/w/share/wavevm
run in_tree uninstall
expect 'a second time there is nothing to do' 0 ''

rm -rf -- "$root"
others
mine=$(files)
run in_tree install
expect 'it is installed beside files of others' 0 ''
output=$(comm -13 <(echo "$mine") <(files))
holds 'the same files as before' test "$output" = "$first"
run in_tree uninstall
output=$(files)
holds 'and what is left when it is gone are those of others' test "$output" = "$mine"
output=$(find "$root" -type f ! -name 'wvm-host.old' -exec cat {} + | sort -u)
holds 'as they were' test "$output" = mine
finish
