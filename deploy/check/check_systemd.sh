#!/bin/bash
# The systemd units, as `make install` leaves them, run by a systemd of their own: a node of one
# host with its gateway, under the units' limits and filters.
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$here/lib.sh"

readonly WAIT_S=60 # for what takes a second on a quiet machine
readonly RING=/dev/shm/wavevm.ring
root=$scratch/root
outer= # unshare, whose child is systemd
inner= # systemd

cleanup() {
	if [ -n "$outer" ]; then
		kill -KILL "$outer" 2>/dev/null # and by --kill-child all of its namespaces
		wait "$outer" 2>/dev/null
	fi
	rm -rf -- "$scratch"
}
trap cleanup EXIT
trap 'exit 1' INT TERM

# within COMMAND…: in systemd's namespaces.
within() {
	timeout -s KILL "$WAIT_S" nsenter -t "$inner" -m -u -i -n -p -C "$@" </dev/null
}

property() {
	within systemctl show --property "$2" --value "$1"
}

# eventually COMMAND…: it succeeds before long.
eventually() {
	local end=$((SECONDS + WAIT_S))
	until "$@"; do
		[ "$SECONDS" -lt "$end" ] || return 1
		sleep 0.1
	done
}

is() {
	[ "$(property "$1" "$2")" = "$3" ]
}

boot() {
	mkdir -p "$scratch/units" "$scratch/etc"
	cp "$root"/usr/local/lib/systemd/system/*.service "$scratch/units"
	ln -s "$root/usr/local/bin" "$scratch/bin"
	cp "$here/../../build/bin/wvm_visit" "$root/usr/local/bin"
	# There is no journal to look into.
	mkdir "$scratch/units/wavevm-gateway@bad.service.d"
	printf '[Service]\nStandardError=append:/run/bad.log\n' \
		>"$scratch/units/wavevm-gateway@bad.service.d/log.conf"
	printf 'NODE 0 127.0.0.1 9000 1 1\n' >"$scratch/etc/topology.conf"
	printf '%s\n' TOPOLOGY=topology.conf PHYS_ID=0 RAM_MB=256 SLAVE_CORES=1 "WVM_RING_PATH=$RING" \
		"WVM_SHM_FILE=/dev/shm/wavevm" >"$scratch/etc/host.conf"
	printf '%s\n' GATEWAY_ROUTES=- 'GATEWAY_UPSTREAM=127.0.0.1 9000' >"$scratch/etc/pod.conf"
	printf '%s\n' GATEWAY_ROUTES=- 'GATEWAY_UPSTREAM=nowhere' >"$scratch/etc/bad.conf"
	unshare --kill-child --pid --fork --mount --mount-proc --cgroup --uts --ipc --net \
		"$here/systemd_pid1.sh" "$scratch" >"$scratch/console" 2>&1 </dev/null &
	outer=$!
	eventually pgrep -P "$outer" >/dev/null || return 1
	inner=$(pgrep -P "$outer")
	eventually within systemctl is-active --quiet basic.target 2>/dev/null
}

program=
goes_on() {
	[ -n "$(within pgrep -x wvm_visit)" ]
}

# Faults that the master has served in its present life.
faults() {
	within /usr/local/bin/wvm_ctl --json stats | python3 -c 'import json, sys
o = json.load(sys.stdin)
def find(o):
    if isinstance(o, dict):
        return sum(v if k in ("faults_read", "faults_write") and isinstance(v, int) else find(v) for k, v in o.items())
    return sum(map(find, o)) if isinstance(o, list) else 0
print(find(o))'
}

more_faults() {
	[ "$(faults 2>/dev/null || echo 0)" -gt "$1" ]
}

if [ "$(id -u)" -ne 0 ]; then
	echo 'SKIPPED: check_systemd.sh: needs root for namespaces'
	exit 0
fi

run make -s -C "$here/../.." install DESTDIR="$root" PREFIX=/usr/local
expect 'make install' 0 ''
holds 'a systemd of our own comes up' boot
if [ "$failed" -ne 0 ]; then
	cat "$scratch/console"
	finish
	exit
fi

run within systemd-analyze verify --man=no /run/units/wavevm-{gateway,master,slave}@host.service
[ "$status" -eq 0 ] && [ -z "$output" ]
verdict 'systemd finds nothing wrong with the units' $?
for role in gateway master slave; do
	run within systemd-analyze security --no-pager --threshold=60 --offline=true \
		"/run/units/wavevm-$role@.service"
	expect "the $role is not exposed by more than 6 of 10" 0 ''
done

run within systemctl start wavevm-slave@host wavevm-gateway@pod
expect 'slave and gateway start, and are ready' 0 ''
holds 'the slave has brought its master' is wavevm-master@host ActiveState active
run within /usr/local/bin/wvm_ctl status
expect 'the master says how it is' 0 'node 0  serving'

nsenter -t "$inner" -m -u -i -n -p -C /usr/local/bin/wvm_visit --rate 200 "$RING" \
	>"$scratch/visit" 2>&1 </dev/null &
program=$!
holds 'a program maps the memory of the node' eventually more_faults 100
holds 'which the unit lets it' is wavevm-master@host NRestarts 0
master=$(property wavevm-master@host MainPID)
within kill -KILL "$master"
holds 'a master that is killed comes back' eventually is wavevm-master@host NRestarts 1
holds 'and is ready' eventually is wavevm-master@host ActiveState active
[ "$(property wavevm-master@host MainPID)" != "$master" ]
verdict 'as another process' $?
holds 'the program goes on, with memory from the new one' eventually more_faults 10
holds 'it has not noticed' goes_on
holds 'nobody restarted the others' is wavevm-slave@host NRestarts 0
master=$(property wavevm-master@host MainPID)
run within systemctl restart wavevm-master@host
expect 'a master is restarted' 0 ''
[ "$(property wavevm-master@host MainPID)" != "$master" ]
verdict 'which makes it another process, too' $?
holds 'the program goes on again' eventually more_faults 10
holds 'and again has not noticed' goes_on

within kill -KILL "$(property wavevm-gateway@pod MainPID)"
holds 'a gateway that is killed comes back' eventually is wavevm-gateway@pod NRestarts 1

run within systemctl start wavevm-gateway@bad
[ "$status" -ne 0 ]
verdict 'one with a bad configuration does not start' $?
sleep 1
holds 'and is not tried again' is wavevm-gateway@bad NRestarts 0
run within cat /run/bad.log
expect 'its log says why' 0 "bad.conf:2: GATEWAY_UPSTREAM 'nowhere' is not"

within pkill -TERM -x wvm_visit
wait "$program"
run within systemctl stop wavevm-slave@host wavevm-master@host wavevm-gateway@pod
expect 'all stop' 0 ''
for unit in wavevm-slave@host wavevm-master@host wavevm-gateway@pod; do
	holds "$unit ended well" is "$unit" Result success
	holds "$unit is gone" is "$unit" ActiveState inactive
done
[ "$failed" -eq 0 ] || tail -n 40 "$scratch/visit" "$scratch/console"
finish
