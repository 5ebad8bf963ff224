#!/bin/sh
# Shows that a relay is one static binary: nothing is linked in at its start, and it runs in an empty root as nobody.
# Needs root for chroot. Leaves nothing behind.
set -eu
binary=${1:?usage: check-static.sh BINARY}
nobody=65534

work=$(mktemp -d)
relay=
cleanup() {
	if [ -n "$relay" ]; then kill -KILL "$relay" 2>/dev/null || true; fi
	rm -rf "$work"
}
trap cleanup EXIT

linked=$(ldd "$binary" 2>&1 || true)
echo "ldd: $linked"
case $linked in
*"statically linked"* | *"not a dynamic executable"*) ;;
*) echo "the binary is not static" >&2; exit 1 ;;
esac
if command -v file >/dev/null; then file -b "$binary"; fi
echo "size: $(stat -c %s "$binary") bytes"

mkdir "$work/root"
chmod 755 "$work" "$work/root"
install -m 755 "$binary" "$work/root/relay"
mkfifo "$work/log"
inside() { chroot --userspec="$nobody:$nobody" "$work/root" "$@"; }

# Not a function: the process has to be the relay itself.
chroot --userspec="$nobody:$nobody" "$work/root" /relay --listen 127.0.0.1:0 2>"$work/log" &
relay=$!
exec 3<"$work/log"
address=
while read -r line <&3; do
	case $line in *"listening on "*) address=${line##*listening on }; break ;; esac
done
[ -n "$address" ] || { echo "it did not start" >&2; exit 1; }
echo "it listens on $address as user $(stat -c %u "/proc/$relay"), alone in a root with: $(ls "$work/root")"

echo "healthcheck: $(inside /relay healthcheck --url "http://$address/ready")"
kill -TERM "$relay"
wait "$relay"
relay=
echo "it ended by itself when told"
if inside /relay healthcheck --url "http://$address/ready"; then
	echo "a healthcheck of nobody succeeded" >&2
	exit 1
fi
