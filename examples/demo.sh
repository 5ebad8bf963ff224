#!/usr/bin/env bash
# The whole thing, seen working: two ends on this machine with the relay inside the first of them. A message, a file of
# 1 GiB and a source tree of 2,000 files, in both directions; every byte is compared. Everything lives in one private
# directory that is gone afterwards, and every wait has a limit.
#
#   BIN=target/release/agent-wormhole [MOUNT=auto|fuse|dir] examples/demo.sh
set -euo pipefail

# How the directories are made: a mount where this machine has FUSE, else a real directory.
mount=${MOUNT:-auto}
bin=$(realpath "${BIN:-target/release/agent-wormhole}")
# Bytes of the large file, and files in the tree.
big=${DEMO_BYTES:-$((1024 * 1024 * 1024))}
files=${DEMO_FILES:-2000}
# Longest wait for anything, in seconds.
limit=${DEMO_LIMIT:-60}

# --- a private place, and the certainty that it goes -----------------------------------------------------------------

# Eight copies of the large file are there at the worst moment: source, outbox, snapshot and inbox of each direction.
need_kib=$((big * 8 / 1024 + 262144))
base=${TMPDIR:-/tmp}
if [ "$(df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 { print $4 }')" -gt "$need_kib" ] 2>/dev/null; then
    base=/dev/shm
fi
place=$(mktemp -d "$base/wormhole-demo.XXXXXX")
mkdir -m 700 "$place/run" "$place/laptop" "$place/server" "$place/config"
export XDG_RUNTIME_DIR=$place/run XDG_CONFIG_HOME=$place/config
unset AGENT_WORMHOLE_RELAY_URL
host= peer=

tidy() {
    status=$?
    trap - EXIT INT TERM
    for child in $host $peer; do kill "$child" 2>/dev/null || true; done
    for child in $host $peer; do
        for _ in $(seq 100); do
            kill -0 "$child" 2>/dev/null || break
            sleep 0.05
        done
        kill -9 "$child" 2>/dev/null || true
    done
    if [ "$status" != 0 ]; then
        echo "the demo failed; the last events were:" >&2
        tail -n 5 "$place"/*.jsonl "$place"/*.err >&2 2>/dev/null || true
    fi
    rm -rf "$place"
    exit "$status"
}
trap tidy EXIT
trap 'exit 130' INT TERM

# --- words -----------------------------------------------------------------------------------------------------------

say() { printf '%s\n' "$*"; }
step() { printf '\n\033[1m%s\033[0m\n' "$*"; }
[ -t 1 ] || step() { printf '\n%s\n' "$*"; }
fail() {
    echo "demo: $*" >&2
    exit 1
}

# until_true WHAT COMMAND…: polls the condition, at most $limit seconds.
until_true() {
    local what=$1 end=$((SECONDS + limit))
    shift
    until "$@" 2>/dev/null; do
        [ "$SECONDS" -lt "$end" ] || fail "waited $limit s for $what"
        for child in $host $peer; do
            kill -0 "$child" 2>/dev/null || fail "a program ended while $what was awaited"
        done
        sleep 0.02
    done
}

# member FILE EVENT NAME: a member of an event's line.
member() { sed -n "s/.*\"event\":\"$2\".*\"$3\":\"\([^\"]*\)\".*/\1/p" "$1" | head -n 1; }
has() { grep -q -- "$2" "$1"; }
sum() { sha256sum < "$1" | cut -d ' ' -f 1; }
# tree_sum DIRECTORY: one sum over names, contents, and what is executable.
tree_sum() {
    (cd "$1" && { find . -type f -print0 | sort -z | xargs -0 sha256sum; find . -type f -perm -u+x | sort; }) |
        sha256sum | cut -d ' ' -f 1
}
count() { find "$1" -type f | wc -l; }
now() { date +%s.%N; }
took() { awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.1f s", b - a }'; }
same() {
    [ "$2" = "$3" ] || fail "$1 differs: $2 and $3"
    say "  sha256 $2  the same on both sides"
}

# --- what is sent ----------------------------------------------------------------------------------------------------

step "A file of $((big / 1024 / 1024)) MiB and a tree of $files files are made"
head -c "$big" /dev/urandom > "$place/laptop/model.bin"
tree=$place/laptop/project
made=0
while [ "$made" -lt "$files" ]; do
    dir=$tree/crate$((made / 200))/src/part$((made / 20 % 10))
    mkdir -p "$dir"
    for _ in $(seq 20); do
        [ "$made" -lt "$files" ] || break
        printf '//! Module %d.\npub const NUMBER: u64 = %d;\npub const NOISE: &str = "%s";\n' \
            "$made" "$((made * 7919))" "$RANDOM$RANDOM" > "$dir/m$made.rs"
        made=$((made + 1))
    done
done
chmod +x "$tree/crate0/src/part0/m0.rs"
model=$(sum "$place/laptop/model.bin")
project=$(tree_sum "$tree")
began=$(now)

# --- the two ends ----------------------------------------------------------------------------------------------------

step "laptop\$ agent-wormhole host"
(cd "$place/laptop" && exec "$bin" host --mount "$mount" --json > "$place/host.jsonl" 2> "$place/host.err") &
host=$!
until_true "the code" has "$place/host.jsonl" '"event":"channel"'
code=$(member "$place/host.jsonl" channel code)
laptop=$(member "$place/host.jsonl" channel mount)
[ -n "$code" ] && [ -d "$laptop" ] || fail "the channel event is not what it should be"
say "  the code is $code; its directory is of the kind $(member "$place/host.jsonl" channel backend)"
member "$place/host.jsonl" channel detail | sed 's/^/  /'

step "server\$ agent-wormhole connect $code"
(cd "$place/server" && exec "$bin" connect "$code" --mount "$mount" --json > "$place/peer.jsonl" 2> "$place/peer.err") &
peer=$!
until_true "the connection" has "$place/peer.jsonl" '"event":"connected"'
until_true "the connection" has "$place/host.jsonl" '"event":"connected"'
server=$(member "$place/peer.jsonl" channel mount)
[ -d "$server" ] || fail "the peer has no directory"
say "  connected; the words are in the process list no more:"
say "  $(tr '\0' ' ' < "/proc/$peer/cmdline" | sed "s|$bin|agent-wormhole|")"
if tr '\0' ' ' < "/proc/$peer/cmdline" | grep -q -- "${code#*-}"; then
    fail "the words are in the process list"
fi

# flush_from DIRECTORY: returns when the other end has stored everything.
flush_from() { (cd "$1" && timeout "$limit" "$bin" flush "${code%%-*}" --timeout "${limit}s"); }

# --- there -----------------------------------------------------------------------------------------------------------

step "laptop\$ echo hello > outbox/message"
echo hello > "$laptop/outbox/message"
until_true "the message" has "$place/peer.jsonl" '"body":"hello\\n"'
grep '"type":"text"' "$place/peer.jsonl" | tail -n 1 | sed "s|$place|…|g; s/^/  server sees /"

step "laptop\$ cp model.bin outbox/"
start=$(now)
cp "$place/laptop/model.bin" "$laptop/outbox/"
until_true "the file" test -e "$server/inbox/model.bin"
say "  there after $(took "$start")"
same model.bin "$model" "$(sum "$server/inbox/model.bin")"

step "laptop\$ cp -r project outbox/"
start=$(now)
cp -r "$tree" "$laptop/outbox/"
flush_from "$place/laptop"
say "  $(count "$server/inbox/project") files there after $(took "$start")"
same project "$project" "$(tree_sum "$server/inbox/project")"

# --- and back --------------------------------------------------------------------------------------------------------

step "server\$ echo 'hello yourself' > outbox/message"
echo 'hello yourself' > "$server/outbox/message"
until_true "the answer" has "$place/host.jsonl" '"body":"hello yourself\\n"'
grep '"type":"text"' "$place/host.jsonl" | tail -n 1 | sed "s|$place|…|g; s/^/  laptop sees /"

step "server\$ cp inbox/model.bin outbox/model-back.bin"
start=$(now)
cp "$server/inbox/model.bin" "$server/outbox/model-back.bin"
until_true "the file" test -e "$laptop/inbox/model-back.bin"
say "  there after $(took "$start")"
same model-back.bin "$model" "$(sum "$laptop/inbox/model-back.bin")"

step "server\$ cp -r inbox/project outbox/project-back"
start=$(now)
cp -r "$server/inbox/project" "$server/outbox/project-back"
flush_from "$place/server"
say "  $(count "$laptop/inbox/project-back") files there after $(took "$start")"
same project-back "$project" "$(tree_sum "$laptop/inbox/project-back")"

# --- the end ---------------------------------------------------------------------------------------------------------

# ended PID NAME: the program ends by itself, with exit code 0.
ended() {
    local end=$((SECONDS + limit)) status=0
    while kill -0 "$1" 2>/dev/null; do
        [ "$SECONDS" -lt "$end" ] || fail "$2 does not end"
        sleep 0.02
    done
    wait "$1" || status=$?
    [ "$status" = 0 ] || fail "$2 ended with exit code $status"
    say "  $2 ended with exit code 0"
}

step "server\$ agent-wormhole close ${code%%-*}"
(cd "$place/server" && timeout "$limit" "$bin" close "${code%%-*}")
ended "$peer" connect
peer=
until_true "the goodbye" has "$place/host.jsonl" '"event":"peer_closed"'
step "laptop\$ agent-wormhole close ${code%%-*}"
(cd "$place/laptop" && timeout "$limit" "$bin" close "${code%%-*}")
ended "$host" host
host=

dirs=$(find "$place/run" -type d \( -name inbox -o -name outbox \) | wc -l)
if has "$place/host.jsonl" '"undelivered"' || has "$place/peer.jsonl" '"undelivered"'; then
    fail "something was not delivered"
fi
[ "$dirs" = 0 ] || fail "$dirs directories of channels were left behind"
# The lock of the local relay may stay: it is empty.
left=$(find "$place/run" -type f -size +0 | wc -l)
[ "$left" = 0 ] || fail "$left files were left behind"
step "Everything arrived once and whole, in $(took "$began"); nothing is left behind."
