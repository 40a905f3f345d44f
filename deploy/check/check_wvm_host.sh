#!/bin/bash
# wvm-host: its configuration, and what it does to processes. No daemon of ours is run.
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$here/lib.sh"

host=$here/../wvm-host
conf=$scratch/host.conf
pid_file=$scratch/run/master.pid
log=$scratch/log/master.log
export FAKE_REPORT=$scratch/report FAKE_MODE=good

master_pid() {
	head -n 1 "$pid_file"
}

# alive PID: not gone and not a zombie.
alive() {
	[ -e "/proc/$1/stat" ] && ! grep -q '^State:[[:space:]]*Z' "/proc/$1/status" 2>/dev/null
}

dead() {
	! alive "$1"
}

others=()
# Ends what the checks started and could not stop themselves.
cleanup() {
	local pid
	for pid in ${others[@]+"${others[@]}"}; do
		kill -KILL "$pid" 2>/dev/null
	done
	rm -rf -- "$scratch"
}
trap cleanup EXIT
trap 'exit 1' INT TERM

cp "$here/../topologies/flat-3.conf" "$scratch/topology.conf"

# write_conf [LINE…]: a good configuration with further lines.
write_conf() {
	{
		printf '%s\n' '# one host' '' 'TOPOLOGY=topology.conf' ' PHYS_ID = 1 ' \
			"RAM_MB=\"2048\"" "MASTER=$here/fake_daemon" 'RUN_DIR=run' 'LOG_DIR=log' \
			'START_TIMEOUT=2' 'STOP_TIMEOUT=1'
		[ $# -eq 0 ] || printf '%s\n' "$@"
	} >"$conf"
}

# bad_conf NAME TEXT LINE…: `start` refuses the configuration with that text.
bad_conf() {
	local name=$1 text=$2
	shift 2
	write_conf "$@"
	run "$host" start -c "$conf"
	expect "$name" 6 "$text"
}

# bad_value NAME OLD NEW TEXT: the good configuration with one line replaced is refused.
bad_value() {
	write_conf
	sed -i "s|^ *$2.*|$3|" "$conf"
	run "$host" start -c "$conf"
	expect "$1" 6 "$4"
}

run "$host"
expect 'without an action it prints its usage' 2 'usage: wvm-host'
run "$host" --help
expect '--help' 0 'start|stop|restart|status'
run "$host" begin
expect 'an unknown action is an error' 2 "'begin' is not start"
run "$host" start stop
expect 'two actions are an error' 2 'one action at a time'
run "$host" start -c
expect '-c without a file is an error' 2 '-c needs a file'
run "$host" start -c "$scratch/none"
expect 'a missing configuration is an error' 6 "$scratch/none: no such file"
run "$host" status -c "$scratch/none"
expect 'and makes the status unknown' 4 "$scratch/none: no such file"
run "$host" start -c "$scratch"
expect 'a directory is no configuration' 6 'not a regular file'

bad_conf 'a line without = names file and line' "$conf:11: 'PORT 9000' is not KEY=value" 'PORT 9000'
bad_conf 'an unknown key' "$conf:11: unknown key 'POTR'" 'POTR=9000'
bad_conf 'a key in lower case' "$conf:11: unknown key 'port'" 'port=9000'
bad_conf 'a key twice' "$conf:11: RAM_MB is in line 5 already" 'RAM_MB=1024'
bad_conf 'a port that is no number' "$conf:11: PORT '9000x' is not a number" 'PORT=9000x'
bad_conf 'a port of 0' "$conf:11: PORT '0' is not a number from 1 to 65535" 'PORT=0'
bad_conf 'a port too high' "$conf:11: CTRL_PORT '65536' is not" 'CTRL_PORT=65536'
bad_conf 'two ports that are one' "PORT and CTRL_PORT are both 9001" 'PORT=9001'
bad_conf 'an empty port' "$conf:11: PORT is missing" 'PORT='
bad_conf 'commands are not executed' "PORT '\$(touch $scratch/executed)' is not" \
	"PORT=\$(touch $scratch/executed)"
holds 'nor by accident' test ! -e "$scratch/executed"
bad_value 'no topology' TOPOLOGY '' 'TOPOLOGY is missing'
bad_value 'a topology that is not there' TOPOLOGY TOPOLOGY=none \
	"$conf:3: TOPOLOGY '$scratch/none' cannot be read"
bad_value 'no physical id' PHYS_ID '' 'PHYS_ID is missing'
bad_value 'a physical id too high' PHYS_ID PHYS_ID=1048576 "$conf:4: PHYS_ID '1048576' is not"
bad_value 'no RAM' RAM_MB RAM_MB=0 "$conf:5: RAM_MB '0' is not"
bad_value 'a number beyond all arithmetic' RAM_MB RAM_MB=99999999999999999999 'RAM_MB'
write_conf
sed -i 's|^MASTER=.*|MASTER=topology.conf|' "$conf"
run "$host" start -c "$conf"
expect 'a program that is none' 5 "$conf:6: MASTER '$scratch/topology.conf' is not a program"
sed -i 's|^MASTER=.*||' "$conf"
run env PATH=/usr/bin:/bin "$host" start -c "$conf"
expect 'a program that is nowhere' 5 'wavevm_node_master is neither beside wvm-host nor in PATH'
mkdir "$scratch/bin"
cp "$here/fake_daemon" "$scratch/bin/wavevm_node_master"
run env PATH="$scratch/bin:/usr/bin:/bin" "$host" start -c "$conf"
expect 'a program is found in PATH' 0 'master is ready, pid'
run "$host" stop -c "$conf"
expect 'and stopped' 0 'master is stopped'

write_conf 'SYNC_BATCH=16' "MASTER_OPTIONS=--shards 2 --poll * \$HOME" 'WVM_RING_PATH=/run/wavevm/a ring' \
	'PORT=9100'
run "$host" status -c "$conf"
expect 'before a start the status is "stopped"' 3 'master is stopped'
run "$host" start -c "$conf"
expect 'start waits for the ready line' 0 'master is ready, pid'
pid=$(master_pid)
others+=("$pid")
holds 'the daemon runs' alive "$pid"
expected=$(printf 'argument %s\n' 2048 9100 "$scratch/topology.conf" 1 9001 9005 16 --shards 2 --poll \
	'*' "\$HOME"; printf 'directory /\nring /run/wavevm/a ring shm none\ndescriptors\nsession 1')
output=$(cat "$FAKE_REPORT")
holds 'arguments, directory, environment, descriptors and session are right' \
	test "$output" = "$expected"
run "$host" status -c "$conf"
expect 'the status of a running daemon' 0 "master runs, pid $pid, log $log"
run "$host" start -c "$conf"
expect 'a second start leaves it alone' 0 "master runs already, pid $pid"
holds 'with the same pid' test "$(master_pid)" = "$pid"
stopped=$(grep -c 'fake: stopped' "$log")
run "$host" restart -c "$conf"
expect 'restart stops and starts' 0 "master is stopped, was pid $pid"
holds 'the old process is gone' dead "$pid"
holds 'and was to leave its pages to the next' grep -q 'fake: ended for the next' "$log"
holds 'not to take them along' test "$(grep -c 'fake: stopped' "$log")" = "$stopped"
pid=$(master_pid)
others+=("$pid")
holds 'a new one runs' alive "$pid"
run "$host" stop -c "$conf"
expect 'stop' 0 "master is stopped, was pid $pid"
holds 'ends the process' dead "$pid"
holds 'by SIGTERM' grep -q 'fake: stopped' "$log"
holds 'and removes the pid file' test ! -e "$pid_file"
run "$host" stop -c "$conf"
expect 'a second stop has nothing to do' 0 'master does not run'

write_conf
run "$host" start -c "$conf"
pid=$(master_pid)
others+=("$pid")
kill -KILL "$pid"
while alive "$pid"; do sleep 0.05; done
run "$host" status -c "$conf"
expect 'a daemon that died is "dead"' 1 'master is dead, but its pid file'
run "$host" start -c "$conf"
expect 'and is started again' 0 'master is ready, pid'
pid=$(master_pid)
others+=("$pid")

# The same pid file, telling of a process that merely has the pid.
sleep 60 &
stranger=$!
disown
others+=("$stranger")
cp "$pid_file" "$scratch/true.pid"
sed "1s/.*/$stranger/" "$scratch/true.pid" >"$pid_file"
run "$host" status -c "$conf"
expect 'a process of another start time is not ours' 1 'master is dead'
run "$host" stop -c "$conf"
expect 'and is not signalled' 0 'removing its stale pid file'
holds 'it lives' alive "$stranger"
sed "2s|[^ ]*$|/usr/bin/other|" "$scratch/true.pid" >"$pid_file"
run "$host" stop -c "$conf"
expect 'a process of another program is not ours' 0 'removing its stale pid file'
holds 'it lives, too' alive "$pid"
sed "2s|^[^ ]*|00000000-0000-0000-0000-000000000000|" "$scratch/true.pid" >"$pid_file"
run "$host" stop -c "$conf"
expect 'a pid of another boot is not ours' 0 'removing its stale pid file'
for text in '' 'x' '-1' '0' '1' "$pid"; do
	printf '%s\n' "$text" >"$pid_file"
	run "$host" stop -c "$conf"
	expect "a pid file that holds only '$text' is stale" 0 'removing its stale pid file'
done
holds 'nothing of this has stopped the daemon' alive "$pid"
cp "$scratch/true.pid" "$pid_file"
run "$host" stop -c "$conf"
expect 'with its true pid file it stops' 0 "master is stopped, was pid $pid"

export FAKE_MODE=dying
run "$host" start -c "$conf"
expect 'a daemon that ends during its start is an error' 1 'master ended during its start with status 3'
expect 'with what it said' 1 'fake: cannot bind UDP port 9000: in use'
holds 'and leaves no pid file' test ! -e "$pid_file"
export FAKE_MODE=mute
run "$host" start -c "$conf"
expect 'a daemon that is never ready is an error' 1 'master was not ready within 2 s and is stopped'
holds 'and leaves no pid file either' test ! -e "$pid_file"
holds 'nor the line of an earlier start counts' grep -q 'fake: ready' "$log"
export FAKE_MODE=unready
run "$host" start -c "$conf"
expect 'a line that merely resembles the ready line does not count' 1 'was not ready within 2 s'
export FAKE_MODE=brief
run "$host" start -c "$conf"
expect 'a daemon that is ready and ends at once is an error' 1 'master ended'
export FAKE_MODE=stubborn
run "$host" start -c "$conf"
expect 'a daemon deaf to SIGTERM starts' 0 'master is ready'
pid=$(master_pid)
others+=("$pid")
run "$host" stop -c "$conf"
expect 'its stop tells of SIGKILL' 0 "pid $pid did not end within 1 s of SIGTERM; sending SIGKILL"
holds 'and has ended it' dead "$pid"

export FAKE_MODE=good
"$host" start -c "$conf" >"$scratch/first" 2>&1 &
first=$!
run "$host" start -c "$conf"
wait "$first"
output="$output$(cat "$scratch/first")"
holds 'two starts at once start one daemon' test "$(grep -o 'is ready, pid\|runs already, pid' \
	<<<"$output" | sort | tr '\n' ' ')" = 'is ready, pid runs already, pid '
others+=("$(master_pid)")
run "$host" stop -c "$conf"
expect 'which stops' 0 'master is stopped'

# The slave comes after the master, and goes before it.
slave_pid() {
	head -n 1 "$scratch/run/slave.pid"
}
write_conf 'SLAVE_CORES=0'
run "$host" start -c "$conf"
expect 'a slave has cores' 6 "SLAVE_CORES '0' is not a number from 1 to 64"
cp "$scratch/topology.conf" "$scratch/with_cores.conf"
awk '$1 == "NODE" && $2 == 1 { $5 = 0 } { print }' "$scratch/with_cores.conf" >"$scratch/topology.conf"
write_conf 'SLAVE_CORES=2' "SLAVE=$here/fake_daemon"
run "$host" start -c "$conf"
expect 'a node that lends memory only has no slave' 6 \
	"$conf:11: SLAVE_CORES is 2, but node 1 lends memory only (0 cores in its NODE line of $scratch/topology.conf)"
holds 'and is not half started' test ! -e "$pid_file"
write_conf
run "$host" start -c "$conf"
expect 'without one it starts' 0 'master is ready'
others+=("$(master_pid)")
run "$host" stop -c "$conf"
expect 'and stops' 0 'master is stopped'
awk '$1 == "NODE" && $2 != 1 { $5 = 0 } { print }' "$scratch/with_cores.conf" >"$scratch/topology.conf"
write_conf 'SLAVE_CORES=2' "SLAVE=$here/fake_daemon" 'SLAVE_OPTIONS=--cpus 1'
run "$host" start -c "$conf"
expect 'a slave is started, too, where others lend memory only' 0 'slave is ready, pid'
others+=("$(master_pid)" "$(slave_pid)")
output=$(grep '^argument' "$FAKE_REPORT" | cut -d ' ' -f 2- | tr '\n' ' ')
holds 'with its arguments' test "$output" = '9005 2 2048 1 9001 --cpus 1 '
run "$host" status -c "$conf"
expect 'and has a status' 0 "slave runs, pid $(slave_pid)"
write_conf
pid=$(slave_pid)
run "$host" stop -c "$conf"
expect 'one that is not configured any more is stopped' 0 "slave is stopped, was pid $pid"
holds 'which ends it' dead "$pid"
run "$host" status -c "$conf"
holds 'and is not heard of again' test "$(grep -c slave <<<"$output")" = 0

# The gateway comes before the master, and goes after it.
gateway_pid() {
	head -n 1 "$scratch/run/gateway.pid"
}
order() {
	grep -Eo '^wvm-host: (gateway|master|slave)' <<<"$output" | cut -d ' ' -f 2 | tr '\n' ' '
}
cp "$here/../topologies/sidecar-3.conf" "$here/../topologies/routes/leaf-1.routes" "$scratch"
gateway=('GATEWAY_ROUTES=leaf-1.routes' 'GATEWAY_UPSTREAM=192.168.10.1 8000' "GATEWAY=$here/fake_daemon"
	'GATEWAY_OPTIONS=--poll')
write_conf "${gateway[@]}"
run "$host" start -c "$conf"
expect 'a gateway that no NODE line names is an error' 6 \
	"$conf:11: a master has no use for a gateway unless the NODE lines of $scratch/topology.conf name it"
write_conf
sed -i 's|^TOPOLOGY=.*|TOPOLOGY=sidecar-3.conf|' "$conf"
# Without what others on this machine may have at port 8000.
run unshare --net "$host" start -c "$conf"
expect 'NODE lines that name a gateway ask for one' 6 \
	'name a gateway on this host (127.x.y.z 8000), and none runs: set GATEWAY_ROUTES'
# shellcheck disable=SC2016 # the inner shell's
run unshare --net bash -c 'ip link set lo up
	python3 -c "import socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind((\"0.0.0.0\", 8000))
print(flush=True)
time.sleep(20)" >"$3" &
	until [ -s "$3" ]; do sleep 0.05; done
	"$1" start -c "$2"; r=$?; "$1" stop -c "$2"; kill $!; exit $r' - "$host" "$conf" "$scratch/bound"
expect 'which somebody else may have started' 0 'master is ready'

# gateway_conf [LINE…]: a host behind a gateway.
gateway_conf() {
	write_conf "${gateway[@]}" "$@"
	sed -i 's|^TOPOLOGY=.*|TOPOLOGY=sidecar-3.conf|' "$conf"
}
# bad_gateway NAME TEXT KEY [VALUE]: a line of it replaced, or left out, is refused.
bad_gateway() {
	gateway_conf
	sed -i "/^$3=/d" "$conf"
	[ $# -lt 4 ] || printf '%s=%s\n' "$3" "$4" >>"$conf"
	run "$host" start -c "$conf"
	expect "$1" "${5:-6}" "$2"
}
bad_gateway 'a gateway without an upstream' 'GATEWAY_UPSTREAM is missing: IP and port' GATEWAY_UPSTREAM
bad_gateway 'an upstream without a port' "GATEWAY_UPSTREAM '192.168.10.1' is not an IPv4" \
	GATEWAY_UPSTREAM 192.168.10.1
bad_gateway 'an upstream by name' "GATEWAY_UPSTREAM 'pod 8000' is not an IPv4" GATEWAY_UPSTREAM 'pod 8000'
bad_gateway 'routes that are not there' "$conf:14: GATEWAY_ROUTES '$scratch/none' cannot be read" \
	GATEWAY_ROUTES none
bad_gateway 'a gateway that is no program' 'is not a program' GATEWAY leaf-1.routes 5
bad_gateway 'a port that NODE lines cannot name' "GATEWAY_PORT is 8001, but the NODE lines of" GATEWAY_PORT 8001
bad_gateway 'a port that the master has' 'CTRL_PORT and GATEWAY_CTRL_PORT are both 9001' GATEWAY_CTRL_PORT 9001
bad_gateway 'one that is none' "GATEWAY_CTRL_PORT 'x' is not a number" GATEWAY_CTRL_PORT x

gateway_conf 'SLAVE_CORES=2' "SLAVE=$here/fake_daemon"
run "$host" start -c "$conf"
expect 'a gateway is started' 0 'gateway is ready, pid'
holds 'before the master, and that before the slave' test "$(order)" = 'gateway master slave '
others+=("$(gateway_pid)" "$(master_pid)" "$(slave_pid)")
run "$host" status -c "$conf"
expect 'it has a status' 0 "gateway runs, pid $(gateway_pid), log $scratch/log/gateway.log"
pids="$(master_pid) $(slave_pid)"
pid=$(gateway_pid)
run "$host" restart gateway -c "$conf"
expect 'it may be restarted' 0 "gateway is stopped, was pid $pid"
holds 'alone' test "$(order)" = 'gateway gateway ' -a "$pids" = "$(master_pid) $(slave_pid)"
holds 'as another process' alive "$(gateway_pid)"
others+=("$(gateway_pid)")
output=$(grep '^argument' "$FAKE_REPORT" | cut -d ' ' -f 2- | tr '\n' ' ')
holds 'with its arguments' test "$output" = "8000 192.168.10.1 8000 $scratch/leaf-1.routes 9002 --poll "
kill -KILL "$(gateway_pid)"
pid=$(gateway_pid)
while alive "$pid"; do sleep 0.05; done
run "$host" status gateway -c "$conf"
expect 'one that died is seen' 1 'gateway is dead'
run "$host" start -c "$conf"
expect 'and started again' 0 'gateway is ready'
holds 'the others go on' test "$pids" = "$(master_pid) $(slave_pid)"
others+=("$(gateway_pid)")
run "$host" stop master slave -c "$conf"
expect 'two daemons are not one' 2 'one daemon or all, not master and slave'
sed -i '/^GATEWAY/d; s|^TOPOLOGY=.*|TOPOLOGY=topology.conf|' "$conf"
run "$host" stop -c "$conf"
holds 'it is stopped last, also when it is not configured any more' test "$(order)" = 'slave master gateway '
run "$host" start gateway -c "$conf"
expect 'nor started then' 6 'asks for no gateway'

# The gateway of a pod: a host without a master.
{
	printf '%s\n' "${gateway[@]}" RUN_DIR=run LOG_DIR=log STOP_TIMEOUT=1
	printf '%s\n' GATEWAY_UPSTREAM=0.0.0.0\ 0 GATEWAY_ROUTES=- GATEWAY_PORT=9000
} | sed '/leaf-1/d; /192.168/d' >"$conf"
run "$host" start -c "$conf"
expect 'a gateway needs no master' 0 'gateway is ready'
holds 'and gets none' test "$(order)" = 'gateway '
others+=("$(gateway_pid)")
output=$(grep '^argument' "$FAKE_REPORT" | cut -d ' ' -f 2- | tr '\n' ' ')
holds 'nor ROUTE lines, an upstream, or a port of its own' test "$output" = '9000 0.0.0.0 0 - 9002 --poll '
run "$host" status -c "$conf"
expect 'it is all there is' 0 'gateway runs'
holds 'to tell of' test "$(wc -l <<<"$output")" = 1
run "$host" stop -c "$conf"
expect 'and stops' 0 'gateway is stopped'
printf 'PHYS_ID=1\n' >>"$conf"
run "$host" start -c "$conf"
expect 'a line of a master asks for all of them' 6 'TOPOLOGY is missing'

write_conf
sed -i 's|^RUN_DIR=.*|RUN_DIR=/dev/null/run|' "$conf"
run "$host" start -c "$conf"
expect 'a run directory that cannot be is an error' 1 "cannot write in RUN_DIR '/dev/null/run'"

run "$host" status -c "$here/../host.conf"
expect 'the example configuration is well-formed' 3 'master is stopped'

finish
