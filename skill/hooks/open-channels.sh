#!/bin/sh
# Tells a session of the channels that were opened in its directory, or below it, and are still open: one line each, and nothing
# where there is none, where the program is missing, or where it fails. Only what this machine wrote about a channel is told:
# its number, its end, its state and its directory; no word of the peer's is.
# As the list of channels has it: without links.
here=$(cd -- "${CLAUDE_PROJECT_DIR:-.}" 2>/dev/null && pwd -P) || exit 0
agent-wormhole status --json 2>/dev/null | while IFS= read -r line; do
    # A row begins with these members, in this order; a quote in a path is escaped, so it does not match and is left out.
    row=$(printf '%s\n' "$line" | sed -n \
        's/^{"nameplate":"\([^"\\]*\)","role":"\([a-z]*\)","state":"\([a-z_]*\)","transport":"[a-z]*","dir":"\([^"\\]*\)","pid":[0-9]*,"cwd":"\([^"\\]*\)".*/\1|\2|\3|\4|\5/p')
    [ -n "$row" ] || continue
    cwd=${row##*|}
    case $cwd/ in
        "${here%/}"/*) ;;
        *) continue ;;
    esac
    rest=${row%|*}
    dir=${rest##*|} rest=${rest%|*}
    state=${rest##*|} rest=${rest%|*}
    role=${rest##*|} number=${rest%%|*}
    echo "The agent-wormhole channel $number ($role, $state) of this directory is still open: $dir." \
        "Its past events: agent-wormhole watch $number --role $role. If it is yours, go on with it; else leave it alone."
done
exit 0
