#!/usr/bin/env bash
# What a file system is expected to do, asked of a mounted `outbox/` by programs that others wrote: fsx (100,000 random
# reads, writes, truncations and mappings of one file, each checked) and pjdfstest (one case for each rule of POSIX).
# The cases that make no sense here are listed with their reasons in pjdfstest.toml, and everything else has to pass.
#
#   BIN=target/release/agent-wormhole FSX=… PJDFSTEST=… tests/posix/run.sh
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
bin=$(realpath "$BIN") fsx=$(realpath "$FSX") pjdfstest=$(realpath "$PJDFSTEST")
operations=${OPERATIONS:-100000}
limit=${LIMIT:-600}

place=$(mktemp -d "${TMPDIR:-/tmp}/wormhole-posix.XXXXXX")
mkdir -m 700 "$place/run"
cases=${CASES:-$place/cases}
export XDG_RUNTIME_DIR=$place/run XDG_CONFIG_HOME=$place/run
host=
tidy() {
    status=$?
    trap - EXIT INT TERM
    if [ -n "$host" ]; then
        kill "$host" 2>/dev/null || true
        for _ in $(seq 100); do
            kill -0 "$host" 2>/dev/null || break
            sleep 0.1
        done
        kill -9 "$host" 2>/dev/null || true
    fi
    rm -rf "$place"
    exit "$status"
}
trap tidy EXIT
trap 'exit 130' INT TERM

"$bin" host --direct --mount fuse --timeout 1h --json > "$place/events" &
host=$!
for _ in $(seq 100); do
    [ -s "$place/events" ] && break
    kill -0 "$host" || exit 1
    sleep 0.1
done
outbox=$(sed -n 's/.*"mount":"\([^"]*\)".*/\1/p' "$place/events")/outbox
[ -d "$outbox" ]

for seed in 1 2 3; do
    echo "fsx, seed $seed: $((operations / 3)) operations on a file in outbox/ before its close"
    timeout "$limit" "$fsx" -N "$((operations / 3 + 1))" -S "$seed" -q -P "$place" "$outbox/fsx-$seed"
    rm "$outbox/fsx-$seed"
done

echo "pjdfstest:"
mkdir "$outbox/posix"
timeout "$limit" "$pjdfstest" -c "$here/pjdfstest.toml" -p "$outbox/posix" > "$cases" 2>&1 || {
    grep -A 3 ' FAILED$' "$cases" | head -n 100
    tail -n 1 "$cases"
    exit 1
}
tail -n 1 "$cases"
