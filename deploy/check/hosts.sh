# Sourced behind lib.sh and roles/check/net.sh by checks whose hosts are namespaces with a host.conf each.
# shellcheck shell=bash disable=SC2154 # scratch and failed are lib.sh's

# give_up WHY [LOG]: the check cannot go on.
give_up() {
	printf 'FAILED  %s\n' "$1"
	[ ! -s "${2:-}" ] || tail -n 15 "$2" | sed 's/^/      | /'
	failed=$((failed + 1))
	finish
	exit 1
}

# on HOST ACTION [DAEMON]: what an operator does there.
on() { net_exec "$1" deploy/wvm-host "${@:2}" -c "$NET_DIR/host.$1"; }

stop_daemons() {
	local conf
	for conf in "$NET_DIR"/host.*; do
		on "${conf##*.}" stop >/dev/null
	done
}

remove_files() {
	rm -f -- /dev/shm/"$NET_TAG"-*
	rm -rf -- "$scratch"
	[ -z "${NET_KEEP:-}" ] || printf 'logs: %s\n' "$NET_DIR"
}
