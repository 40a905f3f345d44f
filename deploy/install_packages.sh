#!/bin/sh
# Installs the packages listed in deploy/packages that are missing. Needs root only if some are.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
missing=
for package in $(sed 's/#.*//' "$here/packages" | tr '\n' ' '); do
	case $(dpkg-query -W -f '${Status}' "$package" 2>/dev/null) in
	*' installed') ;;
	*) missing="$missing $package" ;;
	esac
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ]; then
	echo "install_packages: not installed:$missing; run as root: apt-get install$missing" >&2
	exit 1
fi
echo "APT   $missing"
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086
apt-get install -y -qq --no-install-recommends $missing >/dev/null 2>&1 && exit 0
# The lists may be missing or old.
apt-get update -qq || { echo "install_packages: apt-get update failed" >&2; exit 1; }
# shellcheck disable=SC2086
apt-get install -y -qq --no-install-recommends $missing >/dev/null || {
	echo "install_packages: cannot install$missing" >&2
	exit 1
}
