#!/bin/bash
# Starts the demo's guest with its console on stdout.
#   deploy/guest/run.sh QEMU PARAMETERS QEMU-OPTION...
#   deploy/guest/run.sh build/qemu/qemu-system-x86_64 'wvm.seconds=5' -accel tcg -m 512 -smp 2
# Environment: BUILD (default: build), where build.sh has put the guest.
set -euo pipefail

if [ $# -lt 2 ]; then
	sed -n '2,5s/^# \{0,1\}//p' "$0" >&2
	exit 2
fi
root=$(cd -P "$(dirname "$0")/../.." && pwd)
guest=${BUILD:-build}/guest
case $guest in /*) ;; *) guest=$root/$guest ;; esac
qemu=$1
parameters=$2
shift 2
case $parameters in
*wvm.disk=* | *wvm.net=* | *wvm.swap=* | *wvm.mode=shell*) initramfs=$guest/initramfs.tools ;;
*) initramfs=$guest/initramfs ;;
esac

# no_timer_check: the kernel's test of the interrupt timer counts real time, which an emulated
# processor does not keep up with.
exec "$qemu" -machine q35 -nodefaults -nographic -serial stdio -no-reboot \
	-kernel "$guest/vmlinux" -initrd "$initramfs" \
	-append "console=ttyS0 no_timer_check panic=-1 quiet $parameters" "$@"
