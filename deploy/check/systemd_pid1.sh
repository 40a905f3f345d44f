#!/bin/bash
# systemd_pid1.sh DIR: becomes a systemd that knows the units in DIR/units alone, with DIR/etc as
# /etc/wavevm and DIR/bin as /usr/local/bin. check_systemd.sh calls it as pid 1 of namespaces of its
# own: /run, /tmp, /dev/shm, /var/lib and the network are not the host's either.
set -eu
dir=$1

ip link set lo up
mount -t tmpfs tmpfs /run
mkdir -p /run/units /run/upper /run/work
cp -r "$dir"/units/* /run/units
mount -t overlay overlay -o lowerdir=/etc,upperdir=/run/upper,workdir=/run/work /etc
mkdir -p /etc/wavevm
cp "$dir"/etc/* /etc/wavevm
mount --bind "$dir/bin" /usr/local/bin
for place in /tmp /dev/shm /var/lib /sys/fs/cgroup; do
	mount -t tmpfs tmpfs "$place"
done
mount -t cgroup2 cgroup2 /sys/fs/cgroup

# What units depend on without saying so; Debian's own would change the host's files.
for name in sysinit basic multi-user shutdown network-online; do
	printf '[Unit]\nDescription=%s\nDefaultDependencies=no\n' "$name" >"/run/units/$name.target"
done
export SYSTEMD_UNIT_PATH=/run/units container=other
exec /lib/systemd/systemd --system --unit=basic.target --log-target=console --log-level=info --show-status=no
