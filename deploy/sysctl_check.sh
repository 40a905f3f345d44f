#!/bin/sh
# Checks what WaveVM needs of a host's kernel settings, and sets them if asked to.
set -u

usage() {
	cat <<END
usage: sysctl_check.sh [--apply] [--ram-gb N] [--guest-gb N] [--root DIR]

Says for each kernel setting whether it suffices for WaveVM, and if not why it
matters and what to set. Limits and permissions are judged for the user that
runs it. Exit status 0: all is well; 1: something needs attention; 2: usage.

  --apply       set what is too low (as root; lasts until the next boot)
  --ram-gb N    RAM that this host gives, in GiB: /dev/shm must be able to hold it
  --guest-gb N  RAM of the largest guest, in GiB
  --root DIR    judge the files below DIR (an image, a test) instead of this host's
END
}

apply=no
ram_gb=1
guest_gb=0
root=
attention=0
kept= # lines for /etc/sysctl.d

is_number() {
	case $1 in
	'' | *[!0-9]* | ??????????*) return 1 ;;
	esac
}

usage_error() {
	echo "sysctl_check.sh: $1" >&2
	exit 2
}

parse_arguments() {
	while [ $# -gt 0 ]; do
		case $1 in
		--apply) apply=yes ;;
		--ram-gb | --guest-gb)
			is_number "${2:-}" || usage_error "$1 needs a number of GiB, not '${2:-}'"
			[ "$1" = --ram-gb ] && ram_gb=$2 || guest_gb=$2
			shift
			;;
		--root)
			[ -d "${2:-}" ] || usage_error "--root needs a directory, not '${2:-}'"
			root=$2
			shift
			;;
		-h | --help)
			usage
			exit 0
			;;
		*) usage_error "'$1' is no option; see --help" ;;
		esac
		shift
	done
}

ok() {
	printf 'ok    %s\n' "$*"
}

# bad NAME STATE WHY REMEDY
bad() {
	attention=1
	printf 'BAD   %s %s\n      why: %s\n      set: %s\n' "$1" "$2" "$3" "$4"
}

# first_line FILE: nothing if it cannot be read. Not by `read`, which takes
# single bytes: a sysctl gives its value to the first read alone.
first_line() {
	head -n 1 "$1" 2>/dev/null
}

sysctl_file() {
	printf '%s/proc/sys/%s' "$root" "$(printf '%s' "$1" | tr . /)"
}

am_root() {
	[ "$(id -u)" -eq 0 ]
}

# try_set NAME VALUE: true if the setting now has the value.
try_set() {
	[ "$apply" = yes ] || return 1
	{ printf '%s\n' "$2" >"$(sysctl_file "$1")"; } 2>/dev/null || {
		printf '      %s cannot be set to %s here (are you root?)\n' "$1" "$2"
		return 1
	}
	[ "$(first_line "$(sysctl_file "$1")")" = "$2" ] || {
		printf '      the kernel did not take %s for %s\n' "$2" "$1"
		return 1
	}
}

# settle NAME OLD NEW WHY: sets it, or says what to do.
settle() {
	if try_set "$1" "$3"; then
		printf 'SET   %s = %s (was %s)\n' "$1" "$3" "${2#is }"
		kept="$kept$1 = $3
"
	else
		bad "$1" "$2" "$4" "sysctl -w $1=$3"
	fi
}

# at_least NAME VALUE WHY: a sysctl that is a number.
at_least() {
	value=$(first_line "$(sysctl_file "$1")")
	if ! [ -e "$(sysctl_file "$1")" ]; then
		bad "$1" "is not on this kernel" "$3" "nothing to set: WaveVM needs Linux 6.1 or later"
	elif [ "${#value}" -le 18 ] && [ "$value" -ge "$2" ] 2>/dev/null; then
		ok "$1 = $value"
	else
		settle "$1" "is $value, at least $2 is needed" "$2" "$3"
	fi
}

check_network() {
	at_least net.core.rmem_max 8388608 \
		"a receive buffer below 8 MiB drops bursts of pages, and every drop costs a retry"
	at_least net.core.wmem_max 8388608 \
		"a send buffer below 8 MiB holds back pages that are ready to go"
	at_least net.core.netdev_max_backlog 8192 \
		"a shorter queue between interrupt and socket drops datagrams when several nodes send at once"
}

check_io_uring() {
	name=kernel.io_uring_disabled
	value=$(first_line "$(sysctl_file $name)")
	case $value in
	'') ok "$name is not on this kernel: nothing is disabled" ;;
	0) ok "$name = 0" ;;
	1)
		if am_root; then
			ok "$name = 1: root may use io_uring"
		else
			settle $name "is 1: only root and a group may use io_uring" 0 \
				"the daemons do all their I/O through io_uring"
		fi
		;;
	*) settle $name "is $value: nobody may use io_uring" 0 \
		"the daemons do all their I/O through io_uring" ;;
	esac
}

check_userfaultfd() {
	name=vm.unprivileged_userfaultfd
	value=$(first_line "$(sysctl_file $name)")
	if am_root; then
		ok "$name = ${value:-unknown}: root needs no permission"
	elif [ "$value" = 1 ]; then
		ok "$name = 1"
	elif [ -r "$root/dev/userfaultfd" ] && [ -w "$root/dev/userfaultfd" ]; then
		ok "$name = ${value:-unknown}, but /dev/userfaultfd may be opened"
	else
		settle $name "is ${value:-unknown}, and $(id -un) may not open /dev/userfaultfd" 1 \
			"programs that map cluster memory get their page faults from userfaultfd"
	fi
}

check_ptrace() {
	name=kernel.yama.ptrace_scope
	value=$(first_line "$(sysctl_file $name)")
	most=1
	am_root && most=2
	case $value in
	'') ok "$name is not on this kernel: nothing is restricted" ;;
	[0-9]) if [ "$value" -le $most ]; then
		ok "$name = $value"
	elif [ "$value" -eq 3 ]; then
		bad $name "is 3, which stays until the next boot" \
			"the master takes a client's userfaultfd over with pidfd_getfd" \
			"$name = 1 in /etc/sysctl.d, then boot"
	else
		settle $name "is $value, at most $most is possible" 1 \
			"the master takes a client's userfaultfd over with pidfd_getfd"
	fi ;;
	*) bad $name "is $value" "the master takes a client's userfaultfd over with pidfd_getfd" \
		"sysctl -w $name=1" ;;
	esac
}

check_memory() {
	at_least vm.max_map_count $((65530 + 2 * guest_gb)) \
		"each GiB of a guest is mapped on its own, so that the shards can share its faults"
	name=vm.overcommit_memory
	value=$(first_line "$(sysctl_file $name)")
	if [ "$value" = 2 ]; then
		settle $name "is 2: the kernel promises no more memory than it has" 0 \
			"a guest's RAM is mapped whole, although most of it lives on other hosts"
	else
		ok "$name = ${value:-unknown}"
	fi
}

# limit NAME OPTION LEAST UNIT WHY: a resource limit of this shell, hard.
limit() {
	# shellcheck disable=SC3045 # dash and bash have -H, -l and -n
	value=$(ulimit -H "$2")
	if [ "$value" = unlimited ] || [ "$value" -ge "$3" ]; then
		ok "$1 = $value$4"
	else
		bad "$1" "is $value$4, at least $3$4 is needed" "$5" \
			"/etc/security/limits.d, or Limit${1#RLIMIT_}= of the systemd unit; it cannot be raised from here"
	fi
}

check_limits() {
	if am_root; then
		ok "RLIMIT_MEMLOCK: root may lock memory without limit"
	else
		limit RLIMIT_MEMLOCK -l 131072 " KiB" \
			"the rings and their buffers are locked in memory"
	fi
	limit RLIMIT_NOFILE -n 4096 "" \
		"a node keeps chunk files, clients and their userfaultfds open"
}

# Options and size in KiB of what is mounted on /dev/shm.
shm_options() {
	awk '$2 == "/dev/shm" { options = $4 } END { print options }' "$root/proc/mounts" 2>/dev/null
}

shm_size() {
	df -Pk "$root/dev/shm" 2>/dev/null | awk 'NR == 2 { print $2 }'
}

check_shm_size() {
	size=$(shm_size)
	need=$((ram_gb * 1048576))
	if [ "${size:-0}" -ge "$need" ]; then
		ok "/dev/shm holds $((size / 1024)) MiB"
		return
	fi
	if [ "$apply" = yes ] && mount -o "remount,size=${need}k" "$root/dev/shm" 2>/dev/null; then
		printf 'SET   /dev/shm holds %s MiB (was %s)\n' $((need / 1024)) $((${size:-0} / 1024))
		return
	fi
	bad "/dev/shm" "holds $((${size:-0} / 1024)) MiB, at least $((need / 1024)) are needed" \
		"the pages that this host gives, and those that it caches, are files there" \
		"mount -o remount,size=${ram_gb}g /dev/shm (and in /etc/fstab)"
}

check_huge_pages() {
	name=/sys/kernel/mm/transparent_hugepage/shmem_enabled
	value=$(first_line "$root$name")
	why="one page of 4 KiB must be able to leave the host; a huge page cannot be divided by the protocol"
	case $value in
	'') ok "$name is not on this kernel" ;;
	*'[force]'*)
		if [ "$apply" = yes ] && { echo never >"$root$name"; } 2>/dev/null; then
			printf 'SET   %s = never (was force)\n' "$name"
		else
			bad "$name" "is force" "$why" "echo never > $name"
		fi
		;;
	*) ok "$name: $value" ;;
	esac
	case ,$(shm_options), in
	*,huge=always,* | *,huge=within_size,*)
		if [ "$apply" = yes ] && mount -o remount,huge=never "$root/dev/shm" 2>/dev/null; then
			printf 'SET   /dev/shm huge=never\n'
		else
			bad "/dev/shm" "is mounted with huge pages" "$why" \
				"mount -o remount,huge=never /dev/shm"
		fi
		;;
	esac
}

main() {
	parse_arguments "$@"
	check_network
	check_io_uring
	check_userfaultfd
	check_ptrace
	check_memory
	check_limits
	check_shm_size
	check_huge_pages
	if [ -n "$kept" ]; then
		printf '\nTo keep what was set, put into /etc/sysctl.d/90-wavevm.conf:\n%s' "$kept"
	fi
	exit $attention
}

main "$@"
