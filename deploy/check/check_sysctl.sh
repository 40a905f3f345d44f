#!/bin/bash
# sysctl_check.sh, against the files of a made-up host: no setting of this one is touched.
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$here/lib.sh"
trap 'rm -rf -- "$scratch"' EXIT
trap 'exit 1' INT TERM

root=$scratch/root
tools=$scratch/tools
shell="sh"

# put NAME VALUE: a sysctl, or another file below the root if it begins with /.
put() {
	local file=$1
	case $1 in
	/*) ;;
	*) file=/proc/sys/${1//.//} ;;
	esac
	mkdir -p "$root$(dirname "$file")"
	printf '%s\n' "$2" >"$root$file"
}

get() {
	cat "$root/proc/sys/${1//.//}"
}

# tool NAME: a command of that name, read from standard input.
tool() {
	cat >"$tools/$1"
	chmod +x "$tools/$1"
}

# user UID: who the check believes to be.
user() {
	tool id <<END
#!/bin/sh
[ "\$1" = -u ] && echo $1 || echo somebody
END
}

# shm MIB OPTIONS: /dev/shm; a remount is noted and changes the size.
shm() {
	put /proc/mounts "tmpfs /dev/shm tmpfs $2 0 0"
	echo $(($1 * 1024)) >"$scratch/shm_kib"
	tool df <<END
#!/bin/sh
printf 'Filesystem 1024-blocks Used Available Capacity Mounted\ntmpfs %s 0 0 0%% /dev/shm\n' \
	"\$(cat $scratch/shm_kib)"
END
	tool mount <<END
#!/bin/sh
echo "\$*" >>$scratch/mounts
case \$2 in
remount,size=*k) echo "\$2" | tr -dc 0-9 >$scratch/shm_kib ;;
esac
END
}

# good_host: all is well, for root.
good_host() {
	rm -rf "$root" "$tools" "$scratch/mounts"
	mkdir -p "$root/dev/shm" "$tools"
	put net.core.rmem_max 8388608
	put net.core.wmem_max 16777216
	put net.core.netdev_max_backlog 10000
	put kernel.io_uring_disabled 0
	put vm.unprivileged_userfaultfd 0
	put kernel.yama.ptrace_scope 1
	put vm.max_map_count 65530
	put vm.overcommit_memory 0
	put /sys/kernel/mm/transparent_hugepage/shmem_enabled \
		'always within_size advise [never] deny force'
	shm 2048 rw,nosuid,nodev
	user 0
}

check() {
	run env PATH="$tools:$PATH" "$shell" "$here/../sysctl_check.sh" --root "$root" "$@"
}

# low NAME SETTING VALUE TEXT REMEDY: one setting is wrong, all others are well.
low() {
	good_host
	put "$2" "$3"
	check
	expect "$1: is told" 1 "BAD   $4"
	expect "$1: with what to set" 1 "set: $5"
	holds "$1: and nothing else" test "$(grep -c '^BAD' <<<"$output")" -eq 1
}

# applied NAME SETTING VALUE NEW: --apply sets it, and the next check is content.
applied() {
	good_host
	put "$2" "$3"
	check --apply
	expect "$1: is set" 0 "SET   $2 = $4"
	expect "$1: and may be kept" 0 "$(printf '90-wavevm.conf:\n%s = %s' "$2" "$4")"
	holds "$1: the value is there" test "$(get "$2")" = "$4"
	check
	expect "$1: is well after that" 0 "$2 = $4"
}

all_checks() {
	good_host
	check
	expect 'a host where all is well' 0 'ok    net.core.rmem_max = 8388608'
	holds 'has nothing bad' test "$(grep -c '^BAD\|^SET' <<<"$output")" -eq 0
	holds 'and every setting is named' test "$(grep -c '^ok' <<<"$output")" -eq 12

	low 'rmem_max' net.core.rmem_max 212992 \
		'net.core.rmem_max is 212992, at least 8388608' 'sysctl -w net.core.rmem_max=8388608'
	low 'wmem_max, one too low' net.core.wmem_max 8388607 \
		'net.core.wmem_max is 8388607' 'sysctl -w net.core.wmem_max=8388608'
	low 'netdev_max_backlog' net.core.netdev_max_backlog 1000 \
		'net.core.netdev_max_backlog is 1000' 'sysctl -w net.core.netdev_max_backlog=8192'
	low 'io_uring off' kernel.io_uring_disabled 2 \
		'kernel.io_uring_disabled is 2' 'sysctl -w kernel.io_uring_disabled=0'
	low 'ptrace off' kernel.yama.ptrace_scope 3 \
		'kernel.yama.ptrace_scope is 3, which stays' 'kernel.yama.ptrace_scope = 1 in /etc/sysctl.d'
	low 'max_map_count' vm.max_map_count 65529 \
		'vm.max_map_count is 65529' 'sysctl -w vm.max_map_count=65530'
	low 'strict overcommit' vm.overcommit_memory 2 \
		'vm.overcommit_memory is 2' 'sysctl -w vm.overcommit_memory=0'
	low 'forced huge pages' /sys/kernel/mm/transparent_hugepage/shmem_enabled \
		'always within_size advise never deny [force]' \
		'/sys/kernel/mm/transparent_hugepage/shmem_enabled is force' 'echo never >'
	low 'a value that is no number' net.core.rmem_max lots 'net.core.rmem_max is lots' 'sysctl -w'
	low 'a value beyond all numbers' net.core.rmem_max -99999999999999999999 \
		'net.core.rmem_max is -99999999999999999999' 'sysctl -w'

	applied 'rmem_max' net.core.rmem_max 212992 8388608
	applied 'wmem_max' net.core.wmem_max 212992 8388608
	applied 'netdev_max_backlog' net.core.netdev_max_backlog 1000 8192
	applied 'io_uring' kernel.io_uring_disabled 2 0
	applied 'max_map_count' vm.max_map_count 1000 65530
	applied 'overcommit' vm.overcommit_memory 2 0

	good_host
	put kernel.yama.ptrace_scope 2
	check
	expect 'root may trace with ptrace_scope 2' 0 'ok    kernel.yama.ptrace_scope = 2'
	rm "$root/proc/sys/kernel/yama/ptrace_scope" "$root/proc/sys/kernel/io_uring_disabled"
	check
	expect 'a kernel without Yama restricts nothing' 0 'ptrace_scope is not on this kernel'
	rm "$root/proc/sys/net/core/rmem_max"
	check
	expect 'a kernel without a setting that is needed' 1 'net.core.rmem_max is not on this kernel'

	good_host
	user 1000
	put kernel.io_uring_disabled 1
	put kernel.yama.ptrace_scope 2
	check
	expect 'who is not root needs io_uring for all' 1 'io_uring_disabled is 1: only root and a group'
	expect 'and may not trace with 2' 1 'ptrace_scope is 2, at most 1'
	expect 'and needs userfaultfd' 1 'vm.unprivileged_userfaultfd is 0, and somebody may not open'
	put vm.unprivileged_userfaultfd 1
	check
	expect 'by the sysctl' 1 'ok    vm.unprivileged_userfaultfd = 1'
	put vm.unprivileged_userfaultfd 0
	put /dev/userfaultfd ''
	check
	expect 'or by the device' 1 'ok    vm.unprivileged_userfaultfd = 0, but /dev/userfaultfd'

	good_host
	user 1000
	put vm.unprivileged_userfaultfd 1
	run bash -c 'ulimit -l 64; ulimit -n 256; exec "$@"' - env PATH="$tools:$PATH" "$shell" \
		"$here/../sysctl_check.sh" --root "$root"
	expect 'too little locked memory' 1 'RLIMIT_MEMLOCK is 64 KiB, at least 131072 KiB'
	expect 'names the limit as systemd does' 1 'LimitMEMLOCK='
	expect 'too few descriptors' 1 'RLIMIT_NOFILE is 256, at least 4096'

	good_host
	check --ram-gb 3
	expect 'a /dev/shm too small' 1 '/dev/shm holds 2048 MiB, at least 3072 are needed'
	check --ram-gb 2
	expect 'one that is just enough' 0 'ok    /dev/shm holds 2048 MiB'
	check --ram-gb 3 --apply
	expect 'is made larger' 0 'SET   /dev/shm holds 3072 MiB (was 2048)'
	shm 2048 rw,huge=always,nosuid
	check
	expect 'a /dev/shm of huge pages' 1 '/dev/shm is mounted with huge pages'
	check --apply
	expect 'is mounted anew' 0 'SET   /dev/shm huge=never'
	holds 'by mount' grep -qx -- "-o remount,huge=never $root/dev/shm" "$scratch/mounts"
	check --guest-gb 100000
	expect 'a large guest needs many mappings' 1 'vm.max_map_count is 65530, at least 265530'

	good_host
	put net.core.rmem_max 1
	rm "$root/proc/sys/net/core/rmem_max"
	ln -s /dev/null "$root/proc/sys/net/core/rmem_max"
	check --apply
	expect 'a value that the kernel does not take' 1 'the kernel did not take 8388608'
	rm "$root/proc/sys/net/core/rmem_max"
	mkdir "$root/proc/sys/net/core/rmem_max"
	check --apply
	expect 'a value that cannot be written' 1 'net.core.rmem_max cannot be set to 8388608 here'

	check --frobnicate
	expect 'an unknown option' 2 "'--frobnicate' is no option"
	check --ram-gb many
	expect 'a size that is no number' 2 "--ram-gb needs a number of GiB, not 'many'"
	check --ram-gb
	expect 'a size that is missing' 2 '--ram-gb needs a number'
	check --help
	expect '--help' 0 'usage: sysctl_check.sh'
}

for shell in dash bash; do
	if ! type -P "$shell" >/dev/null; then
		printf 'SKIP    with %s, which is not installed\n' "$shell"
		continue
	fi
	printf 'with %s:\n' "$shell"
	all_checks
done

shell="sh"
run sh "$here/../sysctl_check.sh"
holds 'on this host every value is read whole' \
	grep -Eq "net\.core\.rmem_max (=|is) $(cat /proc/sys/net/core/rmem_max)(,|\$)" <<<"$output"

finish
