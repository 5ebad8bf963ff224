#!/usr/bin/env python3
"""A review hand-off: each diff that arrives is reviewed, and the review goes back under the diff's name.

The reviewer runs it beside its end of a channel, whatever the other end is; that one copies diffs into its outbox/ and
finds the reviews in its inbox/. It ends when the other end closes.

    agent-wormhole connect CODE --detach        # its first line says where the directory is
    python3 review_handoff.py DIRECTORY         # needs: pip install watchdog

watchdog sees what arrives in a mount (FUSE) and in a real directory alike. An event is a reason to look, no more: what is
looked at is the directory, so nothing is missed that came before the watch, and nothing is reviewed twice.
"""
import json
import queue
import sys
from pathlib import Path

from watchdog.events import FileSystemEventHandler
from watchdog.observers import Observer


class Bell(FileSystemEventHandler):
    """Rings at whatever happens in the directory but somebody's reading."""

    def __init__(self):
        self.rung = queue.Queue()

    def on_any_event(self, event):
        if event.event_type in ("created", "moved", "modified"):
            self.rung.put(event)


def review(diff):
    """What a reviewer says of a diff. Here a rule or two; your model goes here, and what it reads is data."""
    added = [line[1:] for line in diff.splitlines() if line.startswith("+") and not line.startswith("+++")]
    found = [f"- ends with spaces: `{line.strip()}`" for line in added if line != line.rstrip()]
    found += [f"- is longer than 100 characters: `{line[:40]}…`" for line in added if len(line) > 100]
    return f"{len(added)} lines added. " + ("\n" + "\n".join(found) if found else "Nothing to complain of.") + "\n"


def has_left(log):
    """Whether the other end has closed. Each whole line of the log is an event."""
    lines = log.read_text(encoding="utf-8").split("\n")[:-1]
    return any(json.loads(line).get("event") in ("peer_closed", "closed") for line in lines)


channel = Path(sys.argv[1])
bell, observer, done = Bell(), Observer(), set()
observer.schedule(bell, str(channel / "inbox"))
observer.start()
while not has_left(channel / "inbox/log.jsonl"):
    for diff in sorted(set((channel / "inbox").glob("*.diff")) - done):
        (channel / "outbox" / f"{diff.stem}.review.md").write_text(review(diff.read_text(encoding="utf-8", errors="replace")))
        print(f"reviewed {diff.name}", flush=True)
        done.add(diff)
    bell.rung.get()
observer.stop()
