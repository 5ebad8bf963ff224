#!/bin/sh
# An API key goes from a laptop to one command on a server: no transcript, event, log, argument or file of the server has it.
#
# The receiver, the server, hosts: whoever else gets hold of the code is refused and noticed, and has no key. laptop() is what
# the agent on the laptop types, server() that on the server; neither reads the key. Here both are on this machine, each in a
# directory of its own; on two machines `host` and `connect` get the same `--relay URL`, too.
#
#   examples/api-key.sh      # agent-wormhole is on the PATH; without FUSE: AGENT_WORMHOLE_MOUNT=dir
set -eu

place=$(mktemp -d)
mkdir "$place/laptop" "$place/server"
code=
leave() {
    for end in laptop server; do
        (cd "$place/$end" && agent-wormhole close "${code%%-*}" --now) 2>/dev/null || true
    done
    rm -rf "$place"
}
trap leave EXIT
trap 'exit 130' INT TERM

# Stands for whatever has the key: `pass show api-key`, a file of mode 0600, the clipboard.
vault() { printf 'sk-example-7f3c9a52d1e84b60\n'; }

laptop() {
    cd "$place/laptop"
    echo "$code" | agent-wormhole connect - --detach > channel.json
    # Through standard input, which nobody sees. --wait: it is there when this returns.
    vault | agent-wormhole send "$number" --secret API_KEY --wait
}

server() {
    cd "$place/server"
    echo 'echo "deployed with a key of ${#API_KEY} characters: $API_KEY"' > deploy.sh
    # Name, sender and about how long it is: the event is all that an agent sees.
    agent-wormhole wait "$number" --for secret:API_KEY --timeout 1m > secret.json
    sed 's/,"seq".*//; s/^/server: the event is /' secret.json
    # One command has it, in a variable; what that prints is masked. --secret API_KEY=OPENAI_API_KEY names another variable.
    agent-wormhole run "$number" --secret API_KEY -- sh deploy.sh
    # It was used once, and is gone.
    agent-wormhole run "$number" --secret API_KEY -- sh deploy.sh 2> again.txt || echo "server: a second time ends with $?"
    if grep -rq "$(vault)" . "$mount"; then exit 1; fi
}

cd "$place/server" && agent-wormhole host --detach > channel.json
code=$(sed -n 's/.*"code":"\([^"]*\)".*/\1/p' channel.json) number=${code%%-*}
mount=$(sed -n 's/.*"mount":"\([^"]*\)".*/\1/p' channel.json)
(laptop) & server && wait $!
