#!/bin/bash
# Builds the QEMU that has WaveVM's accelerator: Debian's source package, one added line that reads
# this folder (and its memory backend's name where -object looks it up).
#   qemu-accel/build.sh            result: build/qemu/qemu-system-x86_64
# Environment: BUILD (default: build), V=1 (show everything), JOBS, CCACHE_DIR.
# It only does what is not done yet, so run it whenever a file here has changed.
set -euo pipefail
export LC_ALL=C PATH=/usr/bin:$PATH

here=$(cd -P "$(dirname "$0")" && pwd)
root=$(dirname "$here")
BUILD=${BUILD:-build}
case $BUILD in /*) ;; *) BUILD=$root/$BUILD ;; esac
out=$BUILD/qemu
src=$out/src
obj=$out/obj
log=$out/build.log
JOBS=${JOBS:-$(nproc)}
V=${V:-0}
program=qemu-system-x86_64

say() { printf '%-5s %s\n' QEMU "$*"; }

die() {
	echo "qemu-accel/build.sh: $*" >&2
	exit 1
}

# Runs a step with its output in the log; shows the log's end when the step fails.
quietly() {
	if [ "$V" != 0 ]; then
		"$@"
	elif ! "$@" >>"$log" 2>&1; then
		tail -n 30 "$log" >&2
		die "failed: $* (whole output: $log)"
	fi
}

check_tools() {
	local missing=() tool
	for tool in ninja meson pkg-config dpkg-source patch apt-get; do
		command -v "$tool" >/dev/null || missing+=("$tool")
	done
	[ ${#missing[@]} = 0 ] ||
		die "not installed: ${missing[*]}. Install: ninja-build meson pkg-config dpkg-dev patch" \
			"libglib2.0-dev libpixman-1-dev libaio-dev liburing-dev libfdt-dev zlib1g-dev"
}

# The system's own sources with "deb" turned into "deb-src", in a configuration of our own.
# Backports are left out: their QEMU is of a version that nobody has tried here.
private_sources() {
	local apt=$1 file
	mkdir -p "$apt/sources.d" "$apt/lists/partial" "$apt/cache/archives/partial"
	rm -f "$apt"/sources.d/*
	for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
		[ -f "$file" ] || continue
		sed -nE '/-backports|cdrom:/d; s/^[[:space:]]*deb(-src)?[[:space:]]/deb-src /p' "$file" | sort -u \
			>"$apt/sources.d/$(basename "$file" .list).list"
	done
	for file in /etc/apt/sources.list.d/*.sources; do
		[ -f "$file" ] || continue
		awk -v RS= '{
			keep = 1
			n = split($0, line, "\n")
			for (i = 1; i <= n; i++) {
				if (line[i] ~ /^Types:/) line[i] = "Types: deb-src"
				if (line[i] ~ /^Suites:/) gsub(/[^ \t]*-backports[^ \t]*/, "", line[i])
				if (line[i] ~ /^Suites:[ \t]*$/) keep = 0
			}
			for (i = 1; keep && i <= n; i++) print line[i]
			print ""
		}' "$file" >"$apt/sources.d/$(basename "$file")"
	done
}

fetch_source() {
	local apt=$out/apt
	local options=(-q -o "Dir::Etc::sourcelist=/dev/null" -o "Dir::Etc::sourceparts=$apt/sources.d"
		-o "Dir::State::lists=$apt/lists" -o "Dir::Cache=$apt/cache"
		-o "APT::Get::List-Cleanup=0" -o "APT::Sandbox::User=root")

	say "fetching Debian's QEMU source package"
	private_sources "$apt"
	# A source without deb-src lists is no reason to stop as long as one has QEMU.
	apt-get "${options[@]}" update >>"$log" 2>&1 || true
	apt-cache "${options[@]}" showsrc --only-source qemu 2>>"$log" | grep '^Package: qemu$' >/dev/null ||
		die "no source package qemu in the system's package sources (see $log)"
	mkdir -p "$out/package"
	(cd "$out/package" && quietly apt-get "${options[@]}" source --download-only --only-source qemu)
}

# Unpacked under another name first, so that an interrupted run leaves nothing half done.
unpack_source() {
	local package
	[ -f "$src/.unpacked" ] && return
	compgen -G "$out/package/qemu_*.dsc" >/dev/null || fetch_source
	say "unpacking"
	rm -rf "$src" "$src.new"
	package=$(printf '%s\n' "$out"/package/qemu_*.dsc | sort -V | tail -n 1)
	quietly dpkg-source --no-check --no-copy -x "$package" "$src.new"
	touch "$src.new/.unpacked"
	mv "$src.new" "$src"
}

# The one line that makes QEMU read this folder.
hook_in() {
	grep -q "^subdir('wavevm')" "$src/meson.build" && return
	sed -i "s/^subdir('accel')\$/&\nsubdir('wavevm')/" "$src/meson.build"
	grep -q "^subdir('wavevm')" "$src/meson.build" ||
		die "QEMU's meson.build has no line subdir('accel') to put ours after"
}

# -object and object-add accept only types that QEMU's schema lists.
list_backend() {
	local schema=$src/qapi/qom.json
	grep -q memory-backend-wavevm "$schema" && return
	sed -i -e "s/^    'memory-backend-ram',/    'memory-backend-wavevm',\n&/" \
		-e "s/^      'memory-backend-ram': /      'memory-backend-wavevm': 'MemoryBackendWavevmProperties',\n&/" \
		"$schema"
	[ "$(grep -c "^ *'memory-backend-wavevm'" "$schema")" = 2 ] ||
		die "QEMU's qapi/qom.json has another layout than expected"
	cat >>"$schema" <<-'END'

		##
		# @MemoryBackendWavevmProperties:
		#
		# Properties for memory-backend-wavevm objects.
		#
		# @offset: where in the VM's memory to begin (default: behind the objects before it)
		#
		# @vm-id: the VM to map memory of (default: that of -accel)
		#
		# Since: 7.2
		##
		{ 'struct': 'MemoryBackendWavevmProperties',
		  'base': 'MemoryBackendProperties',
		  'data': { '*offset': 'size', '*vm-id': 'uint16' } }
	END
}

configure_qemu() {
	local cc=cc options=()
	[ -f "$obj/build.ninja" ] && return
	say "configuring"
	rm -rf "$obj"
	mkdir -p "$obj"
	command -v ccache >/dev/null && cc="ccache cc"
	# Without it 7.2 prefers the copy of meson that Debian has taken out; 10.0 has no such option.
	grep -q -- '--meson=' "$src/configure" && options+=(--meson=/usr/bin/meson)
	(cd "$obj" && quietly "$src/configure" "${options[@]}" --cc="$cc" \
		--target-list=x86_64-softmmu --without-default-features --enable-system --enable-kvm \
		--enable-tcg --enable-fdt=system --enable-linux-aio --enable-linux-io-uring \
		--enable-vhost-user --enable-malloc-trim --disable-install-blobs --disable-tools \
		--disable-docs --disable-werror --enable-pie)
}

# Debian's source has no firmware: it is in packages of its own, which need not be installed. QEMU
# looks for it below the directory that it was started from.
fetch_firmware() {
	local dir=$out/firmware data=$obj/qemu-bundle/usr/local/share/qemu
	if [ ! -f "$dir/.unpacked" ]; then
		say "fetching firmware packages"
		rm -rf "$dir"
		mkdir -p "$dir"
		(cd "$dir" && quietly apt-get -q download seabios qemu-system-data ipxe-qemu)
		local package
		for package in "$dir"/*.deb; do
			quietly dpkg -x "$package" "$dir"
		done
		touch "$dir/.unpacked"
	fi
	[ -f "$data/bios-256k.bin" ] && return
	mkdir -p "$data"
	ln -sf "$dir"/usr/share/seabios/*.bin "$dir"/usr/share/qemu/*.bin "$dir"/usr/lib/ipxe/qemu/*.rom \
		"$data"
}

# meson.build lists the client library's sources when it is configured: a new file makes it run again.
note_client_sources() {
	local list=$out/client-sources
	(cd "$root" && ls shared/client*.c shared/spsc.c 2>/dev/null) >"$list.new" || true
	if ! cmp -s "$list" "$list.new"; then
		mv "$list.new" "$list"
		touch "$src/meson.build"
	fi
	rm -f "$list.new"
}

# One line that is rewritten on a terminal, one per tenth of the work elsewhere.
progress() {
	local line tty=0 done_tenths=-1
	[ -t 1 ] && tty=1
	while IFS= read -r line; do
		printf '%s\n' "$line" >>"$log"
		[[ $line =~ ^\[([0-9]+)/([0-9]+)\] ]] || continue
		local n=${BASH_REMATCH[1]} of=${BASH_REMATCH[2]}
		[ "$of" -ge 20 ] || continue
		if [ $tty = 1 ]; then
			printf '\r%-5s building %d/%d' QEMU "$n" "$of"
		elif [ $((n * 10 / of)) -gt $done_tenths ]; then
			done_tenths=$((n * 10 / of))
			say "building $n/$of"
		fi
	done
	[ $tty = 0 ] || printf '\r%40s\r' ''
}

build_qemu() {
	if [ "$V" != 0 ]; then
		ninja -v -C "$obj" -j "$JOBS" "$program"
	elif ! ninja -C "$obj" -j "$JOBS" "$program" 2>&1 | progress; then
		grep -A 30 '^FAILED' "$log" | head -n 60 >&2
		die "the build failed (whole output: $log)"
	fi
	ln -sfn "obj/$program" "$out/$program"
}

check_tools
mkdir -p "$out"
: >"$log"
exec 9>"$out/lock"
flock 9
if command -v ccache >/dev/null; then
	export CCACHE_DIR=${CCACHE_DIR:-$BUILD/ccache}
fi
unpack_source
ln -sfn "$here" "$src/wavevm"
hook_in
list_backend
note_client_sources
configure_qemu
build_qemu
fetch_firmware
say "$("$out/$program" --version | head -n 1), $out/$program"
