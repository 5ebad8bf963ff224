#!/bin/sh
# A CI job hands its log, while it is written, and its artefacts to a laptop; the job succeeds when the laptop has them.
#
# The laptop hosts, and its code goes into the job's secrets (here: WORMHOLE_CODE). job() is what the job runs: it takes the
# code through standard input, so that no process list and no log of the CI has it. Here both are on this machine; with a
# laptop and a CI service both get the same `--relay URL` (AGENT_WORMHOLE_RELAY_URL).
#
#   examples/ci-to-laptop.sh      # agent-wormhole is on the PATH; without FUSE: AGENT_WORMHOLE_MOUNT=dir
set -eu

place=$(mktemp -d)
mkdir "$place/laptop" "$place/job"
WORMHOLE_CODE=
leave() {
    for end in laptop job; do
        (cd "$place/$end" && agent-wormhole close "${WORMHOLE_CODE%%-*}" --now) 2>/dev/null || true
    done
    rm -rf "$place"
}
trap leave EXIT
trap 'exit 130' INT TERM

# What the job builds, and how it ends.
build() {
    mkdir -p dist/bin
    for n in 1 2 3; do echo "compiling part $n" && echo "part $n" > "dist/bin/part-$n"; done
}

job() {
    cd "$place/job"
    printf '%s\n' "$WORMHOLE_CODE" | agent-wormhole connect - --detach --timeout 2m > channel.json
    number=${WORMHOLE_CODE%%-*}
    # The log goes as it comes. A pipe ends as its last command does, so how the build ended goes through a file.
    { build 2>&1 && echo 0 > result || echo 1 > result; } | agent-wormhole send "$number" --file - --name log.txt --wait
    agent-wormhole send "$number" --file dist
    # 0: the laptop has all of it. Else the job fails, with what was not stored on standard error.
    agent-wormhole flush "$number" --timeout 10m
    agent-wormhole close "$number"
    return "$(cat result)"
}

# The laptop: hosts, waits for the artefacts, keeps them.
cd "$place/laptop"
agent-wormhole host --detach --timeout 1h > channel.json
WORMHOLE_CODE=$(sed -n 's/.*"code":"\([^"]*\)".*/\1/p' channel.json)
(job) & job=$!
cd "$place/laptop"
agent-wormhole wait "${WORMHOLE_CODE%%-*}" --for dist --timeout 1m > event.json
cp -r "$(sed -n 's/.*"mount":"\([^"]*\)".*/\1/p' channel.json)/inbox/." kept
wait "$job" && echo "the job succeeded"
sed 's/^/its log: /' kept/log.txt
ls kept/dist/bin
