#!/bin/sh
# An agent in a sandbox without any network works over a channel all the same: `agent-wormhole host` runs outside, beside the
# sandbox, and all that the sandbox has of the channel is its directory. Inside, no program of ours is needed: cat and ls do.
#
# The sandbox here is a network and a mount namespace of `unshare`. With a container engine it is the same, for instance
# `docker run --network none --user "$(id -u)" -v "$mailbox":/mailbox …`. Two things count for a mount (FUSE): the channel
# is there before the sandbox is made, and inside it is the same user who looks; nobody else can, not even root. Where that cannot
# be, take a real directory: AGENT_WORMHOLE_MOUNT=dir.
#
#   examples/no-network.sh      # agent-wormhole is on the PATH; root, or a user who may make user namespaces
set -eu

place=$(mktemp -d)
mkdir "$place/laptop" "$place/outside" "$place/root"
code=
leave() {
    for end in laptop outside; do
        (cd "$place/$end" && agent-wormhole close "${code%%-*}" --now) 2>/dev/null || true
    done
    # The channel takes its directory away itself, and what is in it is not ours to remove.
    for _ in $(seq 100); do [ -e "$place/mailbox" ] && sleep 0.1 || break; done
    rm -rf "$place"
}
trap leave EXIT
trap 'exit 130' INT TERM

# Outside: the channel's process, which has the network.
mailbox=$place/mailbox
cd "$place/outside" && agent-wormhole host --dir "$mailbox" --detach > channel.json
code=$(sed -n 's/.*"code":"\([^"]*\)".*/\1/p' channel.json)

# The laptop: an agent that hands a task to the one in the sandbox.
cd "$place/laptop" && echo "$code" | agent-wormhole connect - --detach > channel.json
seq 100 > numbers.txt
agent-wormhole send "${code%%-*}" --file numbers.txt

# The sandbox.
[ "$(id -u)" = 0 ] && user= || user=--map-root-user
mailbox=$mailbox mailbox_inside=$place/root unshare $user --net --mount timeout 60 sh -euc '
    mount --rbind "$mailbox" "$mailbox_inside" && cd "$mailbox_inside"
    echo "interfaces in the sandbox: $(sed -n "s/^ *\([^:]*\):.*/\1/p" /proc/net/dev); routes: $(tail -n +2 /proc/net/route | wc -l)"
    if agent-wormhole connect 40123-cross-clock-marble@192.0.2.7 > /dev/null 2>&1; then exit 1; else echo "connect: $?"; fi
    until [ -e inbox/numbers.txt ]; do sleep 0.1; done
    awk "{ sum += \$1 } END { print sum }" inbox/numbers.txt > outbox/sum.txt
'
agent-wormhole wait "${code%%-*}" --for sum.txt --timeout 1m > event.json
echo "the sandbox says: $(cat "$(sed -n 's/.*"saved_to":"\([^"]*\)".*/\1/p' event.json)")"
