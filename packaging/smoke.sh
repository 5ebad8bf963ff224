#!/bin/sh
# Installs a package of target/packages into an empty place and uses it there, in an environment that holds nothing else:
# `smoke.sh cargo|static|wheel|sdist|npm|deb`. Leaves no file, no process and no mount behind.
#
# Each place: a directory for cargo; for the static binary a root that holds nothing but it and /tmp, with /proc,
# /dev/null and /dev/fuse, and then without the last; for Python a fresh virtual environment, and uv's directories; for npm a prefix; for Debian a
# throw-away copy of this system (an overlay in memory), in which dpkg really installs and removes. The last and the empty
# root need root.
set -eu
kind=${1:?usage: smoke.sh cargo|static|wheel|sdist|npm|deb}
cd "$(dirname "$0")/.."
# Mounts of their own: whatever happens, none is left.
if [ "$kind" = static ] || [ "$kind" = deb ]; then
	[ "$(id -u)" = 0 ] || { echo "run this as root: it makes a root for the $kind package" >&2; exit 1; }
	[ -n "${SMOKE_APART:-}" ] || SMOKE_APART=1 exec unshare --mount "$0" "$@"
fi
target=$(realpath "${CARGO_TARGET_DIR:-target}")
tools=${TOOLS:?the directory with uv}
out=$target/packages
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)

# Short: sockets lie below it, and a socket's path has 107 bytes at most.
work=$(mktemp -d /tmp/aw.XXXXXX)
chmod 755 "$work"
started=
cleanup() {
	# Nothing comes between, not even another signal of whoever is impatient.
	set +e
	trap '' HUP INT TERM
	for process in $started; do kill -KILL "-$process" 2>/dev/null; done
	# A killed program leaves its mounts to the next command of it, of which there is none here.
	awk -v under="$work/" 'index($2, under) == 1 { print $2 }' /proc/mounts | sort -r |
		while read -r mount; do umount --lazy "$mount"; done
	rm -rf --one-file-system "$work"
}
trap cleanup EXIT
trap 'exit 1' HUP INT TERM

fail() { printf 'smoke: %s: %s\n' "$kind" "$*" >&2; exit 1; }

# How the program is started: `path` is where it was installed; in another root, `top` is that root as seen from here.
path= top= command=agent-wormhole

# Becomes the program, in a session and an environment of its own.
become() {
	set -- "$command" "$@"
	[ -z "$top" ] || set -- chroot "$top" "$@"
	cd "$top$place"
	exec setsid env -i PATH="$path:/usr/sbin:/usr/bin:/sbin:/bin" HOME="$place/home" XDG_RUNTIME_DIR="$place/run" "$@"
}
run() { (become "$@"); }

# A member of the first event that has it.
member() { printf '%s\n' "$2" | sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p" | head -n 1; }

# The first event of that name on a descriptor.
event() {
	while read -r line <&"$2"; do
		case $line in *"\"event\":\"$1\""*) printf '%s\n' "$line"; return ;; esac
	done
	fail "there is no event $1"
}

# Two ends, a text there and a file back.
talk() {
	rm -f "$work/host" "$work/peer"
	mkfifo "$work/host" "$work/peer"
	become host --mount "$1" --json >"$work/host" &
	host=$!
	started=$host
	exec 3<"$work/host"
	opened=$(event channel 3)
	code=$(member code "$opened") number=${code%%-*} here=$top$(member mount "$opened")
	[ "$(member backend "$opened")" = "$1" ] || fail "it is no $1: $opened"
	become connect "$code" --mount "$1" --json >"$work/peer" &
	peer=$!
	started="$started $peer"
	exec 4<"$work/peer"
	there=$top$(member mount "$(event channel 4)")
	event connected 4 >/dev/null

	printf 'hello by %s' "$kind" >"$here/outbox/message"
	told=$(run wait "$number" --role peer --for text --timeout 30s)
	[ "$(member body "$told")" = "hello by $kind" ] || fail "the text did not arrive: $told"
	cp LICENSE "$there/outbox/terms.txt"
	run wait "$number" --role host --for terms.txt --timeout 30s >/dev/null
	cmp LICENSE "$here/inbox/terms.txt"

	run close "$number" --role host
	wait "$host" || fail "the host ended with $?"
	# What came stays until this end closes, too.
	run close "$number" --role peer
	wait "$peer" || fail "the peer ended with $?"
	started=
	exec 3<&- 4<&-
	[ ! -e "$here" ] && [ ! -e "$there" ] || fail "a directory is left"
	echo "a text there and a file back ($1)"
}

# What a supervisor does: a signal to what it has started ends the channel, and the exit code is the program's.
told() {
	rm -f "$work/host"
	mkfifo "$work/host"
	become host --mount dir --json >"$work/host" &
	host=$!
	started=$host
	exec 3<"$work/host"
	here=$top$(member mount "$(event channel 3)")
	kill "-$1" "$host"
	code=0
	wait "$host" || code=$?
	started=
	exec 3<&-
	[ "$code" = "$2" ] || fail "after SIG$1 it ended with $code, not $2"
	[ ! -e "$here" ] || fail "after SIG$1 a directory is left"
}

# Uses what is installed. The argument: which back ends there are.
use() {
	place=$work/place
	[ -z "$top" ] || place=/place
	mkdir -p "$top$place/home"
	mkdir -p -m 700 "$top$place/run"
	said=$(run --version)
	[ "$said" = "agent-wormhole $version" ] || fail "it is not this version: $said"
	run --help >"$work/help"
	grep -q 'agent-wormhole host' "$work/help" || fail "its help has no example"
	code=0
	run status 9471 2>/dev/null || code=$?
	[ "$code" = 2 ] || fail "an error ended with $code, not 2"
	for back in $1; do talk "$back"; done
	told TERM 0
	told INT 130
	run doctor --loop || fail "doctor --loop ended with $?"
	# The list of channels and the socket of this machine's relay stay; of a channel nothing does.
	left=$(cd "$top$place/run/agent-wormhole" && find . -mindepth 1 ! -name channels ! -name 'relay.*')
	[ -z "$left" ] || fail "its runtime directory still has $left"
}

# The back ends that work here.
backs="dir"
if [ -c /dev/fuse ] && { [ "$(id -u)" = 0 ] || command -v fusermount3 >/dev/null; }; then backs="dir fuse"; fi

# Says which file of a kind there is, and how large it is.
file() {
	[ -f "$1" ] || fail "there is no $1; build it: make package-$kind"
	echo "$(basename "$1"): $(stat -c %s "$1") bytes"
}

python_package() {
	file "$1"
	python3 -m venv "$work/venv"
	CARGO_TARGET_DIR=$target "$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps "$1"
	path=$work/venv/bin
	use "$backs"
	echo "pip uninstalls: $("$path/pip" uninstall --yes agent-wormhole | tail -n 1)"
	[ ! -e "$path/agent-wormhole" ] || fail "pip left the command"
}

in_empty_root() {
	file "$out/agent-wormhole-$version-linux-$(uname -m).tar.gz"
	tar -xzf "$out/agent-wormhole-$version-linux-$(uname -m).tar.gz" -C "$work"
	unpacked=$work/agent-wormhole-$version-linux-$(uname -m)/agent-wormhole
	linked=$(ldd "$unpacked" 2>&1 || true)
	case $linked in
	*"statically linked"* | *"not a dynamic executable"*) ;;
	*) fail "it is not static: $linked" ;;
	esac
	echo "the binary: $(stat -c %s "$unpacked") bytes, $linked"
	top=$work/root command=/agent-wormhole
	mkdir -p "$top/proc" "$top/dev"
	# Where a mount keeps what is too much for its memory.
	mkdir -m 1777 "$top/tmp"
	install -m 755 "$unpacked" "$top/agent-wormhole"
	mount -t proc proc "$top/proc"
	for device in null fuse; do
		[ ! -c "/dev/$device" ] || { : >"$top/dev/$device" && mount --bind "/dev/$device" "$top/dev/$device"; }
	done
	use "$backs"
	if [ -e "$top/dev/fuse" ]; then umount "$top/dev/fuse" && rm "$top/dev/fuse"; fi
	echo "and without FUSE, in a root with: $(cd "$top" && echo * dev/*)"
	use dir
}

in_copy_of_the_system() {
	deb=$(echo "$out"/agent-wormhole_"$version"-*.deb)
	file "$deb"
	if command -v lintian >/dev/null; then lintian --fail-on error --allow-root "$deb" || fail "lintian found errors"; fi
	# In memory: an overlay cannot lie on what it covers.
	mkdir "$work/memory"
	mount -t tmpfs memory "$work/memory"
	mkdir "$work/memory/upper" "$work/memory/work" "$work/memory/root"
	top=$work/memory/root
	mount -t overlay overlay -o "lowerdir=/,upperdir=$work/memory/upper,workdir=$work/memory/work" "$top"
	for dir in proc dev; do mount --rbind "/$dir" "$top/$dir"; done
	cp "$deb" "$top/agent-wormhole.deb"
	chroot "$top" dpkg --install /agent-wormhole.deb
	for file in man/man1/agent-wormhole.1.gz man/man1/agent-wormhole-host.1.gz bash-completion/completions/agent-wormhole \
		zsh/vendor-completions/_agent-wormhole fish/vendor_completions.d/agent-wormhole.fish doc/agent-wormhole/copyright; do
		# A system that leaves documentation out has none of this package's.
		[ -s "$top/usr/share/$file" ] || dpkg-deb --contents "$deb" | grep -q "/usr/share/$file" || fail "there is no $file"
	done
	chroot "$top" bash -c '. /usr/share/bash-completion/completions/agent-wormhole && complete -p agent-wormhole'
	use "$backs"
	rm -r "$top/place"
	chroot "$top" dpkg --purge agent-wormhole
	left=$(find "$work/memory/upper/usr" -name '*agent-wormhole*' ! -type c)
	[ -z "$left" ] || fail "dpkg left $left"
}

case $kind in
cargo)
	CARGO_TARGET_DIR=$target "${CARGO:-cargo}" install --quiet --locked --path . --root "$work/cargo" 2>&1 |
		grep -v 'be sure to add' || true
	path=$work/cargo/bin
	file "$path/agent-wormhole"
	use "$backs"
	;;
static) in_empty_root ;;
wheel)
	wheel=$(echo "$out"/agent_wormhole-"$version"-*.whl)
	python_package "$wheel"
	path=$work/uv/bin
	env -i PATH=/usr/bin:/bin HOME="$work/home" UV_CACHE_DIR="$work/uv/cache" UV_TOOL_DIR="$work/uv/tools" \
		UV_TOOL_BIN_DIR="$path" "$tools/bin/uv" --quiet tool install --offline --python "$work/venv/bin/python" "$wheel"
	echo "by uv tool install: $(ls "$path")"
	use "$backs"
	;;
sdist)
	# What cargo built of the same sources elsewhere passes for what it would build of these, and hides a file that is missing.
	rm -rf "$target"/release/.fingerprint/agent-wormhole*
	python_package "$out/agent_wormhole-$version.tar.gz"
	;;
npm)
	file "$out/agent-wormhole-$version.tgz"
	for part in "$out"/agent-wormhole-linux-*-"$version".tgz; do file "$part"; done
	npm install --silent --global --prefix "$work/npm" --cache "$work/npm-cache" --offline --no-audit --no-fund \
		"$out/agent-wormhole-$version.tgz" "$out"/agent-wormhole-linux-*-"$version".tgz
	path=$work/npm/bin:$(dirname "$(command -v node)")
	use "$backs"
	;;
deb) in_copy_of_the_system ;;
*) echo "there is no package $kind" >&2; exit 2 ;;
esac
echo "smoke: $kind: ok"
