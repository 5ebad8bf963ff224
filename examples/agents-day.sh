#!/usr/bin/env bash
# A day of two agents: one hosts a channel and lets go of it, the other connects; fifty messages, files and directories
# go each way; the network between them is cut, one machine sleeps and wakes up, both close. What remains is the
# transcript, which is printed as a story. Everything lives in one private directory that is gone afterwards, and every
# wait has a limit. It takes about a minute, most of which is the sleep.
#
#   BIN=target/release/agent-wormhole [MOUNT=auto|fuse|dir] [KEEP=DIR] examples/agents-day.sh
#
# KEEP is where both transcripts and all events are put. Needs python3, which reads the transcript.
set -euo pipefail

mount=${MOUNT:-auto}
bin=$(realpath "${BIN:-target/release/agent-wormhole}")
# Items that each agent sends.
items=${DAY_ITEMS:-50}
# Longest wait for anything.
limit=120s

place=$(mktemp -d "${TMPDIR:-/tmp}/wormhole-day.XXXXXX")
mkdir -m 700 "$place/run" "$place/config" "$place/laptop" "$place/server" "$place/kept"
keep=$(realpath "${KEEP:-$place/kept}")
export XDG_RUNTIME_DIR=$place/run XDG_CONFIG_HOME=$place/config
unset "${!AGENT_WORMHOLE_@}"
relay=

tidy() {
    status=$?
    trap - EXIT INT TERM
    "$bin" status --json 2>/dev/null | sed -n 's/.*"pid":\([0-9]*\).*/\1/p' | while read -r pid; do
        kill -CONT "$pid" 2>/dev/null && kill "$pid" 2>/dev/null || true
    done
    [ -z "$relay" ] || kill "$relay" 2>/dev/null || true
    wait
    if [ "$status" != 0 ]; then
        echo "the day failed; the last events were:" >&2
        tail -n 5 "$keep"/*.events.jsonl >&2 2>/dev/null || true
    fi
    rm -rf "$place"
    exit "$status"
}
trap tidy EXIT
trap 'exit 130' INT TERM

step() { printf '\n%s\n' "$*"; }

# The network between the two: a relay of their own.
network() {
    : > "$place/relay.err"
    "$bin" relay --listen "$1" --messages-per-minute 0 --bytes-per-minute 0 2> "$place/relay.err" &
    relay=$!
    until address=$(sed -n 's/.*listening on //p' "$place/relay.err") && [ -n "$address" ]; do
        kill -0 "$relay" && sleep 0.02
    done
}

step "Morning: the laptop hosts a channel, and its shell is free again"
network 127.0.0.1:0
cd "$place/laptop"
"$bin" host --detach --relay "ws://$address" --mount "$mount" > "$keep/laptop.first.jsonl"
code=$(sed -n 's/.*"code":"\([^"]*\)".*/\1/p' "$keep/laptop.first.jsonl")
number=${code%%-*}
cd "$place/server"
printf '%s\n' "$code" | "$bin" connect - --detach --relay "ws://$address" --mount "$mount" > "$keep/server.first.jsonl"

# Whatever happens to a watcher, another goes on where it was. These two last as long as the channel.
for end in host peer; do
    name=$([ $end = host ] && echo laptop || echo server)
    "$bin" watch "$number" --role $end > "$keep/$name.events.jsonl" &
    eval "watch_$end=$!"
done
"$bin" wait "$number" --role host --for connected --timeout "$limit"

# dir END: the directory of an end.
dir() { "$bin" status "$number" --role "$1" --json | sed -n 's/.*"dir":"\([^"]*\)".*/\1/p'; }
host=$(dir host) peer=$(dir peer)
# pid END: its process.
pid() { "$bin" status "$number" --role "$1" --json | sed -n 's/.*"pid":\([0-9]*\).*/\1/p'; }

# heard END EVENT: waits until an end has told it.
heard() {
    { timeout "$limit" "$bin" watch "$number" --role "$1" || true; } | grep -q -m 1 "\"event\":\"$2\""
}

# hand DIRECTORY NAME N END: the N-th thing that an agent hands over.
hand() {
    local box=$1/outbox who=$2 n=$3 role=$4
    case $((n % 5)) in
        0) seq "$n" > "$place/$who/report-$n.txt" && cp "$place/$who/report-$n.txt" "$box/" ;;
        1) echo "$who, message $n" > "$box/$n.msg" ;;
        2) "$bin" send "$number" --role "$role" "$who, message $n" ;;
        3) head -c 300000 /dev/urandom > "$place/$who/model-$n.bin" &&
            "$bin" send "$number" --role "$role" --file "$place/$who/model-$n.bin" ;;
        4) mkdir -p "$place/$who/src-$n/deep" && date > "$place/$who/src-$n/deep/main.c" &&
            "$bin" send "$number" --role "$role" --file "$place/$who/src-$n" ;;
    esac
}

step "The day: $items items each way; in the middle of it the network goes away for a while"
for n in $(seq "$items"); do
    hand "$host" laptop "$n" host
    hand "$peer" server "$n" peer
    if [ "$n" = $((items / 2)) ]; then
        { kill -9 "$relay" && wait "$relay"; } 2> "$place/killed" || true
        heard host reconnecting
    elif [ "$n" = $((items / 2 + 5)) ]; then
        network "$address"
    fi
done
"$bin" flush "$number" --role host --timeout "$limit"
"$bin" flush "$number" --role peer --timeout "$limit"

step "Noon: the server sleeps, and the laptop goes on writing"
sleeper=$(pid peer)
kill -STOP "$sleeper"
echo "are you there?" > "$host/outbox/noon.msg"
heard host peer_away
kill -CONT "$sleeper"
heard host peer_back
"$bin" flush "$number" --role host --timeout "$limit"

step "Evening: what is to stay is saved, and both close"
cp "$host/transcript.jsonl" "$keep/laptop.transcript.jsonl"
cp "$peer/transcript.jsonl" "$keep/server.transcript.jsonl"
for n in $(seq "$items"); do
    case $((n % 5)) in
        0) cmp "$place/laptop/report-$n.txt" "$peer/inbox/report-$n.txt" ;;
        3) cmp "$place/server/model-$n.bin" "$host/inbox/model-$n.bin" ;;
        4) diff -r "$place/laptop/src-$n" "$peer/inbox/src-$n" ;;
    esac
done
"$bin" close "$number" --role host
wait "$watch_host" && echo "the laptop's channel ended with 0"
"$bin" close "$number" --role peer
wait "$watch_peer" && echo "the server's channel ended with 0"

step "The laptop's day, from its transcript:"
python3 - "$keep/laptop.transcript.jsonl" <<'PYTHON'
import json, sys
for line in open(sys.argv[1], encoding="utf-8"):
    event = json.loads(line)
    what = event.get("event") or f"{event['from']} -> {event['type']}"
    told = event.get("body") or event.get("name") or event.get("detail") or ""
    print(f"{event['at'][11:19]}  {what:18} {told.strip()[:80]}")
PYTHON
