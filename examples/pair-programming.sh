#!/bin/sh
# Two agents pair programming over one channel: the author sends a change as a directory; the tester asks what the author has
# not said, tries the change and reports; the author mends it and sends it again, until the test passes.
#
# author() is what one agent types, tester() the other one. Here both are on this machine, each in a directory of its own: so
# `agent-wormhole` knows whose end is meant. On two machines `host` and `connect` get the same `--relay URL`, too.
#
#   examples/pair-programming.sh      # agent-wormhole is on the PATH; without FUSE: AGENT_WORMHOLE_MOUNT=dir
set -eu

place=$(mktemp -d)
mkdir "$place/author" "$place/tester"
code=
leave() {
    for end in author tester; do
        (cd "$place/$end" && agent-wormhole close "${code%%-*}" --now) 2>/dev/null || true
    done
    rm -rf "$place"
}
trap leave EXIT
trap 'exit 130' INT TERM
# member NAME: that text member of an event.
member() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p"; }

author() {
    cd "$place/author"
    mkdir greet
    echo 'echo "Hello, $1!"' > greet/greet.sh
    agent-wormhole send "$number" --file greet --name change-1
    agent-wormhole wait "$number" --for ask:nobody --timeout 1m > event.json
    echo "author: the tester asks: $(cat "$author/inbox/ask/nobody")"
    echo world > "$author/outbox/answer/nobody"
    agent-wormhole wait "$number" --for report-1.txt --timeout 1m > event.json
    echo "author: the tester says: $(cat "$author/inbox/report-1.txt")"
    echo 'echo "Hello, ${1:-world}!"' > greet/greet.sh
    agent-wormhole send "$number" --file greet --name change-2
    agent-wormhole wait "$number" --for report-2.txt --timeout 1m > event.json
    echo "author: the tester says: $(cat "$author/inbox/report-2.txt")"
}

tester() {
    cd "$place/tester"
    echo "Whom does it greet when nobody is named?" > "$tester/outbox/ask/nobody"
    name=$(cat "$(agent-wormhole wait "$number" --for answer:nobody --timeout 1m | member saved_to)")
    for n in 1 2; do
        change=$(agent-wormhole wait "$number" --for "change-$n" --timeout 1m | member saved_to)
        said=$(sh "$change/greet.sh")
        [ "$said" = "Hello, $name!" ] && verdict=passed || verdict="failed: it says '$said' when nobody is named"
        echo "$verdict" > "$tester/outbox/report-$n.txt"
    done
    agent-wormhole flush "$number" --timeout 1m
}

cd "$place/author" && agent-wormhole host --detach > event.json
code=$(member code < event.json) number=${code%%-*} author=$(member mount < event.json)
cd "$place/tester" && echo "$code" | agent-wormhole connect - --detach > event.json
tester=$(head -n 1 event.json | member mount)
(tester) & author && wait $!
