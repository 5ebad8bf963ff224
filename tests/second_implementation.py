#!/usr/bin/env python3
"""An end of a channel, written from `src/PROTOCOL.md` and `relay/PROTOCOL.md` alone, for those who write another one.

The parts are in `tests/second/`: the code (`wordcode`), keys (`keys`), messages (`messages`), the handshake
(`handshake`), items that come (`incoming`) and go (`outgoing`), the session of both (`session`), and two ways to carry
its frames (`transport`). All but the last are without input, output and clock. What it leaves out: ends of 0.1, relays
that are told the whole code, and files on a disk; what it receives is kept in memory, hashed and told.

It needs Python 3.11 and `pip install spake2 cryptography websockets mnemonic` (the last for its list of words); `make
needs` installs them:

    second_implementation.py host --relay ws://127.0.0.1:8080
    second_implementation.py host --direct 127.0.0.1
    second_implementation.py peer 9471-cross-clock-marble --relay ws://127.0.0.1:8080
    second_implementation.py peer 47110-cross-clock-marble --direct 127.0.0.1
    second_implementation.py vectors tests/vectors src/PROTOCOL.md

Each line of standard input is a JSON object: `{"do":"text","body":…}`, `{"do":"file","name":…,"path":…}`,
`{"do":"group","name":…,"path":…}`, `{"do":"stream","name":…,"path":…}` (as `file`, but without its end),
`{"do":"cancel","item":…}`, `{"do":"close"}` (once all is delivered), `{"do":"leave"}` (at once). Each line of standard
output is one, too, with `event` first. The exit code is 0 after a close, 3 after a failed handshake, 4 without a link.
"""

import argparse
import asyncio
import json
import secrets
import socket
import sys
import time
from hashlib import sha256
from pathlib import Path

from second import vectors, wordcode
from second.keys import HOST, PEER
from second.messages import DIR, FILE, KINDS, TEXT, Head
from second.session import Session
from second.transport import Gone, Seat, direct_host, direct_peer, relay

LONGEST_COMMAND = 8 << 20


def say(event: str, **members: object) -> None:
    print(json.dumps({"event": event} | members), flush=True)


def described(head: Head, content: bytes) -> dict:
    about = {"name": head.name, "kind": KINDS[head.kind], "executable": head.executable}
    return about | {"size": len(content), "sha256": sha256(content).hexdigest()}


class End:
    """One end at work: what it is told on standard input, and what it tells."""

    def __init__(self, role: str):
        self.role = role
        self.session: Session | None = None
        self.changed = asyncio.Event()

    def begin(self, code: str) -> Session:
        self.session = Session(self.role, code.encode(), self.tell)
        return self.session

    def host(self, nameplate: str, **more: object) -> Session:
        """A host's nameplate is known; now its words are drawn."""
        code = "-".join([nameplate, *(secrets.choice(wordcode.WORDS) for _ in range(3))])
        say("code", code=code, **more)
        return self.begin(code)

    @staticmethod
    def tell(name: str, about: dict) -> None:
        if "head" not in about:
            say(name, **about)
        elif about["head"].kind == TEXT:
            say("text", body=about["content"].decode())
        else:
            members = [described(*member) for member in about["members"]]
            say(name, **described(about["head"], about["content"]), members=members)

    def do(self, command: dict) -> None:
        session, out = self.session, self.session.outgoing
        match command["do"]:
            case "text":
                say("sent", item=out.item(TEXT, "", command["body"].encode()))
            case "file":
                say("sent", item=out.item(FILE, command["name"], Path(command["path"]).read_bytes()))
            case "stream":
                item = out.stream(command["name"])
                out.append(item, Path(command["path"]).read_bytes(), last=False)
                say("sent", item=item)
            case "group":
                say("sent", item=out.group(command["name"], members_of(Path(command["path"]))))
            case "cancel":
                out.cancel(command["item"])
            case "close":
                session.draining = True
            case "leave":
                session.close(0, time.monotonic())
        self.changed.set()

    async def listen(self) -> None:
        """Takes commands until there are no more; the end of them closes."""
        loop = asyncio.get_running_loop()
        lines = asyncio.StreamReader(limit=LONGEST_COMMAND)
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
        while line := await lines.readline():
            self.do(json.loads(line))
        self.do({"do": "close"})


def members_of(root: Path) -> list[tuple[Head, bytes]]:
    """Everything below a directory, as the heads of members."""
    found = []
    for path in sorted(root.rglob("*")):
        name, about = str(path.relative_to(root)), path.stat()
        if path.is_dir():
            found.append((Head(0, DIR, name), b""))
        else:
            head = Head(0, FILE, name, executable=bool(about.st_mode & 0o100), mtime=about.st_mtime_ns)
            found.append((head, path.read_bytes()))
    return found


async def run(args: argparse.Namespace) -> int:
    end = End(args.role)
    if args.role == HOST and args.direct:
        listener = socket.create_server((args.direct, 0))
        port = listener.getsockname()[1]
        session = end.host(str(args.port or port), port=port)
        carrying = direct_host(session, end.changed, listener)
    elif args.role == HOST:
        carrying = relay(end.host, end.changed, args.relay, Seat(HOST, None))
    else:
        nameplate, code = wordcode.parse(args.code)
        if args.direct:
            carrying = direct_peer(end.begin(code), end.changed, args.direct, args.port or int(nameplate))
        else:
            carrying = relay(lambda _: end.begin(code), end.changed, args.relay, Seat(PEER, nameplate))
    listening = asyncio.ensure_future(end.listen())
    try:
        await carrying
    except Gone as gone:
        say("gone", detail=str(gone))
        return 4
    finally:
        listening.cancel()
    if end.session.handshake.verdict == "failed":
        return 3
    say("closed", unconfirmed=end.session.unconfirmed())
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    roles = parser.add_subparsers(dest="role", required=True)
    for role in (HOST, PEER):
        arguments = roles.add_parser(role)
        if role == PEER:
            arguments.add_argument("code")
        way = arguments.add_mutually_exclusive_group(required=True)
        way.add_argument("--relay", metavar="URL")
        way.add_argument("--direct", metavar="ADDRESS")
        arguments.add_argument("--port", type=int, help="the port that the peer dials, where another one listens there")
    known = roles.add_parser("vectors")
    known.add_argument("directory", type=Path)
    known.add_argument("document", type=Path)
    args = parser.parse_args()
    if args.role == "vectors":
        return vectors.check(args.directory, args.document)
    return asyncio.run(run(args))


if __name__ == "__main__":
    sys.exit(main())
