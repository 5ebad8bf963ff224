#!/usr/bin/env python3
"""An end of a channel, written from `src/PROTOCOL.md` and `relay/PROTOCOL.md` alone, for those who write another one.

The parts are in `tests/second/`: the code (`wordcode`), keys (`keys`), messages (`messages`), the handshake
(`handshake`), items that come (`incoming`) and go (`outgoing`), those whose name counts (`named`), the session of all
(`session`), and two ways to carry its frames (`transport`). All but the last are without input, output and clock. What
it leaves out: ends of 0.1, relays that are told the whole code, and files on a disk; what it receives is kept in memory,
hashed and told.

It needs Python 3.11 and `pip install spake2 cryptography websockets mnemonic` (the last for its list of words); `make
needs` installs them:

    second_implementation.py host --relay ws://127.0.0.1:8080
    second_implementation.py host --direct 127.0.0.1
    second_implementation.py peer 9471-cross-clock-marble --relay ws://127.0.0.1:8080
    second_implementation.py peer 47110-cross-clock-marble --direct 127.0.0.1
    second_implementation.py vectors tests/vectors src/PROTOCOL.md

Each line of standard input is a JSON object: `{"do":"text","body":…}`, `{"do":"file","name":…,"path":…}`,
`{"do":"group","name":…,"path":…}`, `{"do":"stream","name":…,"path":…}` (as `file`, but without its end),
`{"do":"ask","name":…,"body":…}`, `{"do":"answer","name":…,"body":…}`, `{"do":"secret","name":…,"value":…}`,
`{"do":"read","item":…}` (tells the other end so), `{"do":"use","name":…}` (a secret that came, once: else no value is
printed), `{"do":"cancel","item":…}`, `{"do":"close"}` (once all is delivered), `{"do":"leave"}` (at once). Each line
of standard output is one, too, with `event` first. The exit code is 0 after a close, 3 after a failed handshake, 4
without a link. `--features` says what the end knows besides: words with commas between, none of them for an end that
knows nothing.
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
from second.handshake import FEATURES
from second.incoming import is_text
from second.keys import HOST, PEER
from second.messages import ANSWER, ASK, DIR, FILE, KINDS, SECRET, TEXT, Head
from second.session import Session
from second.transport import Gone, Seat, direct_host, direct_peer, relay

LONGEST_COMMAND = 8 << 20


def say(event: str, **members: object) -> None:
    print(json.dumps({"event": event} | members), flush=True)


def unix_millis() -> int:
    return time.time_ns() // 1_000_000


def shown(value: bytes | None) -> dict:
    """A secret for its user; one that is no text is told in hexadecimal digits."""
    return {"value": value and value.decode()} if value is None or is_text(value) else {"hex": value.hex()}


def described(head: Head, content: bytes) -> dict:
    about = {"name": head.name, "kind": KINDS[head.kind], "executable": head.executable}
    return about | {"size": len(content), "sha256": sha256(content).hexdigest()}


class End:
    """One end at work: what it is told on standard input, and what it tells."""

    def __init__(self, role: str, features: tuple[str, ...]):
        self.role = role
        self.features = features
        self.session: Session | None = None
        self.changed = asyncio.Event()

    def begin(self, code: str) -> Session:
        self.session = Session(self.role, code.encode(), self.tell, features=self.features)
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
            return
        head, content = about["head"], about["content"]
        if head.kind == TEXT:
            say("text", item=head.item, body=content.decode())
        elif head.kind in (ASK, ANSWER):
            say(name, item=head.item, name=head.name, body=content.decode())
        elif head.kind == SECRET:
            say(name, item=head.item, name=head.name)
        else:
            members = [described(*member) for member in about["members"]]
            say(name, item=head.item, **described(head, content), members=members)

    def do(self, command: dict) -> None:
        session, out = self.session, self.session.outgoing
        match command["do"]:
            case "text":
                self.send(TEXT, "", command["body"].encode())
            case "file":
                self.send(FILE, command["name"], Path(command["path"]).read_bytes())
            case "ask":
                self.send(ASK, command["name"], command["body"].encode())
            case "answer":
                self.send(ANSWER, command["name"], command["body"].encode())
            case "secret":
                self.send(SECRET, command["name"], command["value"].encode())
            case "read":
                session.read(command["item"], unix_millis())
            case "use":
                say("used", name=command["name"], **shown(session.use(command["name"], unix_millis())))
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

    def send(self, kind: int, name: str, content: bytes) -> None:
        item = self.session.item(kind, name, content)
        if item is not None:
            say("sent", item=item)

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
    end = End(args.role, tuple(word for word in args.features.split(",") if word))
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
        arguments.add_argument("--features", metavar="WORDS", default=",".join(FEATURES))
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
