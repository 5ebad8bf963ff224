#!/usr/bin/env python3
"""Computes `records.json` and the worked example of `src/PROTOCOL.md` from the run of `handshake.json`.

Run it with the interpreter of `make needs` after a change of the protocol. It stands on `cryptography` and `spake2` and
on no code of this project, so that what it writes is a second opinion; the other files were computed likewise.
"""

import hmac
import json
import re
from hashlib import sha256
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from spake2 import SPAKE2_A, SPAKE2_B
from spake2.ed25519_basic import L as ORDER

HERE = Path(__file__).resolve().parent
DOCUMENT = HERE.parent.parent / "src" / "PROTOCOL.md"
RUN = json.loads((HERE / "handshake.json").read_text())
DATA, CONTROL = 1, 2
WINDOWS = 8 << 20, 2 << 20
SHORTEST = b'{"version":1,"role":"peer"}'


def expand(key: bytes, salt: bytes | None, info: str, length: int = 32) -> bytes:
    return HKDF(SHA256(), length, salt, info.encode()).derive(key)


def cbor(*members: tuple[int, bytes]) -> bytes:
    return bytes([0xA0 + len(members)]) + b"".join(bytes([key]) + value for key, value in members)


def number(value: int) -> bytes:
    if value < 24:
        return bytes([value])
    return b"\x18" + value.to_bytes(1) if value < 256 else b"\x1a" + value.to_bytes(4)


def message(tag: int, body: bytes) -> bytes:
    return bytes([tag]) + len(body).to_bytes(4) + body


def text(item: int, content: bytes | None) -> bytes:
    """A head, with its content or without."""
    inline = [] if content is None else [(4, number(len(content))), (7, bytes([0x40 + len(content)]) + content)]
    return message(1, cbor((0, number(item)), (1, number(0)), (3, b"\x60"), *inline))


def receipt(item: int) -> bytes:
    return message(4, cbor((0, number(item))))


def close(reason: int) -> bytes:
    return message(5, cbor((0, number(reason))))


def state(next: int, end: int, echo: int, ask: bool = False, dealt: int = 0) -> bytes:
    numbers = [next, WINDOWS[0], WINDOWS[1] + dealt, end, 1, echo]
    flags = [b"\xf5" if ask else b"\xf4", b"\xf4"]
    return message(6, cbor(*enumerate([*map(number, numbers), *flags])))


def longer(state: bytes) -> bytes:
    """With a member of the future, of 200 bytes."""
    body = bytes([state[5] + 1]) + state[6:] + b"\x18\x2a\x58\xc8" + bytes(200)
    return message(6, body)


# --- the run


class Run:
    """All that follows from the password, two scalars and two versions."""

    def __init__(self):
        password = RUN["code"].encode()
        self.wide = expand(password, None, "SPAKE2 pw", 48)
        scalars = {role: bytes.fromhex(RUN[role]["scalar_wide"])[::-1] for role in ("host", "peer")}
        self.scalar = {role: int.from_bytes(wide) % ORDER for role, wide in scalars.items()}
        ends = {
            "host": SPAKE2_A(password, entropy_f=lambda _: scalars["host"]),
            "peer": SPAKE2_B(password, entropy_f=lambda _: scalars["peer"]),
        }
        self.spake = {role: end.start() for role, end in ends.items()}
        group, side = ends["host"].params.group, ends["host"]
        theirs = group.bytes_to_element(self.spake["peer"][1:])
        self.z = theirs.add(side.params.N.scalarmult(-side.pw_scalar)).scalarmult(self.scalar["host"]).to_bytes()
        self.k = ends["host"].finish(self.spake["peer"])
        assert self.k == ends["peer"].finish(self.spake["host"])
        self.version = {role: RUN[role]["version"].encode() for role in ("host", "peer")}
        ways = {"host": "host-to-peer", "peer": "peer-to-host"}
        self.legacy = {role: expand(self.k, None, way) for role, way in ways.items()}
        parts = [self.spake["host"], self.spake["peer"], self.version["host"], self.version["peer"]]
        self.s = sha256(b"".join(len(part).to_bytes(4) + part for part in parts)).digest()
        self.key = {role: expand(self.k, self.s, f"agent-wormhole/2 {way}") for role, way in ways.items()}
        both = sha256(self.spake["host"] + self.spake["peer"]).digest()
        self.kr = expand(self.k, both, "agent-wormhole/2 resume")

    def sealed(self, role: str, plain: bytes) -> bytes:
        """Under a 0.1 key and counter 0."""
        return AESGCM(self.legacy[role]).encrypt(bytes(12), plain, None)

    def record(self, role: str, kind: int, number: int, plain: bytes) -> bytes:
        header = kind.to_bytes(1) + number.to_bytes(8)
        return header + AESGCM(self.key[role]).encrypt(kind.to_bytes(4) + number.to_bytes(8), plain, header)


# --- records.json


def steps(run: Run, *given: dict) -> list[dict]:
    """What the peer sends: each sealed under `number`, and then altered; or bytes as they are."""
    made = []
    for step in given:
        if "frame" in step:
            made.append(step)
            continue
        kind, plain = step.get("kind", DATA), step.get("plain", b"")
        role = step.get("from", "peer")
        record = bytearray(run.record(role, kind, step["number"], plain))
        for at, bits in step.get("alter", {}).items():
            record[int(at)] ^= bits
        shown = {"kind": kind, "number": step["number"], "plaintext": plain.hex()}
        shown |= {name: step[name] for name in ("from", "alter") if name in step}
        made.append(shown | {"record": record.hex()})
    return made


def records(run: Run) -> list[dict]:
    one, two = text(1, b"hi"), text(2, b"you")
    d = lambda number, plain=one, **more: {"number": number, "plain": plain, **more}  # noqa: E731
    c = lambda number, plain, **more: d(number, plain, kind=CONTROL, **more)  # noqa: E731
    raw = lambda frame: {"frame": frame}  # noqa: E731
    altered = {"12": 1}
    rows = [
        # name, what comes, the outcome, `next` after it, and whether a `state` is due at once: with `again` or without
        ("two records in order", [d(0), d(1, two)], "ok", 2, None),
        ("a record twice", [d(0), d(0)], "ok", 1, "state"),
        ("one below the expected number is not opened", [d(0), d(0, alter=altered)], "ok", 1, "state"),
        ("one above the expected number", [d(1, two)], "ok", 0, "again"),
        ("one above the expected number is not opened", [d(1, two, alter=altered)], "ok", 0, "again"),
        ("what came too early comes again", [d(1, two), d(0), d(1, two)], "ok", 2, None),
        ("an altered record", [d(0, alter=altered)], "tampered", 0, None),
        ("an altered tag", [d(0, alter={"-1": 128})], "tampered", 0, None),
        ("a data record that is called control", [d(0, alter={"0": 3})], "tampered", 0, None),
        ("a control record that is called data", [c(0, state(0, 0, 1), alter={"0": 3})], "tampered", 0, None),
        ("a record under another number", [d(1, alter={"8": 1})], "tampered", 0, None),
        ("a record of the other direction", [d(0, **{"from": "host"})], "tampered", 0, None),
        ("a record that was good until its last bit", [d(0), d(1, two, alter={"-16": 1})], "tampered", 1, None),
        ("nothing", [raw("")], "frame", 0, None),
        ("24 bytes", [raw("01" + "00" * 23)], "frame", 0, None),
        ("25 bytes that do not open", [raw("01" + "00" * 24)], "tampered", 0, None),
        ("kind 0", [raw("00" * 25)], "frame", 0, None),
        ("kind 3", [raw("03" + "00" * 24)], "frame", 0, None),
        ("the handshake again", [raw(run.spake["peer"].hex()), raw(RUN["peer"]["sealed_version"])], "ok", 0, None),
        ("another SPAKE2 message", [raw("42" + "00" * 32)], "frame", 0, None),
        ("a control record", [c(0, state(0, 0, 1))], "ok", 0, "state"),
        ("a control record twice is not opened", [c(0, state(0, 0, 1)), c(0, b"", alter=altered)], "ok", 0, "state"),
        ("a late control record is not opened", [c(7, state(0, 0, 1)), c(6, b"", alter=altered)], "ok", 0, "state"),
        ("an altered control record", [c(0, state(0, 0, 1), alter=altered)], "tampered", 0, None),
        ("a control record of more than 128 bytes", [c(0, longer(state(0, 0, 1)))], "ok", 0, "state"),
        ("a control record without a state", [c(0, b"")], "frame", 0, None),
        ("a control record with two states", [c(0, state(0, 0, 1) * 2)], "frame", 0, None),
        ("a control record with a message", [c(0, close(0))], "frame", 0, None),
        ("a state in a data record", [d(0, state(0, 0, 1))], "frame", 1, None),
        ("an acknowledgement of what was not sent", [c(0, state(1, 0, 1))], "acknowledged future", 0, None),
        ("an end above what has come", [c(0, state(0, 3, 1))], "ok", 0, "state"),
        ("a control record after close", [d(0, close(0)), c(0, state(0, 1, 1))], "ok", 1, "state"),
        ("a record after close", [d(0, close(0)), d(1)], "after close", 1, None),
        ("what was handled before a fault stays handled", [d(0, one + b"\x09" + bytes(4))], "frame", 1, None),
    ]
    return [
        {"name": name, "steps": steps(run, *given), "outcome": outcome, "next": next, "due": due}
        for name, given, outcome, next, due in rows
    ]


def proofs(run: Run) -> list[dict]:
    """Second and third frames of a resume, after the challenges of `handshake.json`."""
    cp, ch = (bytes.fromhex(RUN["resume"][name]) for name in ("peer_challenge", "host_challenge"))

    def proof(who: bytes, *challenges: bytes, key: bytes = run.kr) -> bytes:
        return hmac.digest(key, who + b"".join(challenges), "sha256")

    host, peer = proof(b"host", cp, ch), proof(b"peer", cp, ch)
    rows = [
        ("the host", "host", host, True),
        ("the peer", "peer", peer, True),
        ("the host's, sent back by a peer", "peer", host, False),
        ("the peer's, said by a host", "host", peer, False),
        ("challenges in another order", "host", proof(b"host", ch, cp), False),
        ("another key", "peer", proof(b"peer", cp, ch, key=bytes(32)), False),
        ("one bit", "peer", peer[:31] + bytes([peer[31] ^ 1]), False),
        ("a byte less", "peer", peer[:31], False),
        ("a byte more", "host", host + b"\0", False),
        ("nothing", "host", b"", False),
    ]
    first = {"host": b"R\x02" + ch, "peer": b"R\x03"}
    return [
        {"name": name, "from": who, "frame": (first[who] + claimed).hex(), "proves": proves}
        for name, who, claimed, proves in rows
    ]


def versions(run: Run) -> list[dict]:
    """Versions of the peer beyond those of `handshake.json`, as they were before sealing."""
    rows = [
        ("features of another type, twice", b'{"version":1,"role":"peer","protocol":2,"features":1,"features":{}}', "protocol 2"),
        ("agent null", b'{"version":1,"role":"peer","protocol":2,"agent":null}', "protocol 2"),
        ("spaces, another order", b' {"protocol" : 2 , "role" : "peer","version":1}\n', "protocol 2"),
        ("an escaped role", b'{"version":1,"role":"p\\u0065er","protocol":2}', "protocol 2"),
        ("the highest protocol", b'{"version":1,"role":"peer","protocol":18446744073709551615}', "protocol 2"),
        ("protocol beyond 64 bits", b'{"version":1,"role":"peer","protocol":18446744073709551616}', "failed"),
        ("a role twice", b'{"version":1,"role":"peer","role":"peer","protocol":2}', "failed"),
        ("protocol twice", b'{"version":1,"role":"peer","protocol":2,"protocol":2}', "failed"),
        ("protocol null", b'{"version":1,"role":"peer","protocol":null}', "failed"),
        ("protocol below zero", b'{"version":1,"role":"peer","protocol":-2}', "failed"),
        ("protocol with a fraction", b'{"version":1,"role":"peer","protocol":2.0}', "failed"),
        ("version true", b'{"version":true,"role":"peer","protocol":2}', "failed"),
        ("agent a number", b'{"version":1,"role":"peer","protocol":2,"agent":3}', "failed"),
        ("a list", b'["version",1]', "failed"),
        ("a byte order mark", b'\xef\xbb\xbf{"version":1,"role":"peer","protocol":2}', "failed"),
        ("UTF-16", '{"version":1,"role":"peer","protocol":2}'.encode("utf-16"), "failed"),
        ("a string that is not UTF-8", b'{"version":1,"role":"peer","protocol":2,"agent":"\xff"}', "failed"),
        ("not a number", b'{"version":1,"role":"peer","protocol":NaN}', "failed"),
        ("version with an exponent", b'{"version":1e0,"role":"peer","protocol":2}', "failed"),
        ("a fraction elsewhere", b'{"version":1,"role":"peer","protocol":2,"features":[1.5],"x":2e9}', "protocol 2"),
        ("a lone surrogate in agent", b'{"version":1,"role":"peer","protocol":2,"agent":"\\ud800"}', "failed"),
        ("a lone surrogate in a member's name", b'{"version":1,"role":"peer","protocol":2,"\\ud800":0}', "failed"),
        ("a lone surrogate elsewhere", b'{"version":1,"role":"peer","protocol":2,"features":["\\ud800"],"x":"\\udc00"}', "protocol 2"),
        ("a role twice elsewhere", b'{"version":1,"role":"peer","protocol":2,"x":{"role":1,"role":2}}', "protocol 2"),
        ("a number of 5,000 digits elsewhere", b'{"version":1,"role":"peer","protocol":2,"x":' + b"7" * 5000 + b"}", "protocol 2"),
        ("100 levels", b'{"version":1,"role":"peer","protocol":2,"x":' + b"[" * 99 + b"]" * 99 + b"}", "protocol 2"),
        ("as long as any", SHORTEST + bytes([0x20] * (16_384 - 16 - len(SHORTEST))), "protocol 1"),
        ("longer than any", SHORTEST + bytes([0x20] * (16_385 - 16 - len(SHORTEST))), "unproven"),
    ]  # fmt: skip
    made = []
    for name, plain, verdict in rows:
        # The seal of a long one is left to whoever reads it.
        sealed = {"sealed": run.sealed("peer", plain).hex()} if len(plain) < 1024 else {}
        made.append({"name": name, "plaintext": digits(plain), **sealed, "verdict": verdict})
    return made


def features(run: Run) -> list[dict]:
    """Versions of the peer with these `features`, and which of them a host knows that has named all three."""
    rows = [
        ("all", '["secrets","questions","opened"]', ["secrets", "questions", "opened"]),
        ("none", "[]", []),
        ("another order, and one twice", '["opened","secrets","opened"]', ["secrets", "opened"]),
        ("one that nobody knows", '["later","questions"]', ["questions"]),
        ("another case, and a space", '["Secrets","opened "]', []),
        ("an escape", '["opene\\u0064"]', ["opened"]),
        ("null", "null", []),
        ("a word", '"secrets"', []),
        ("an object", '{"secrets":"opened"}', []),
        ("a number among them", '["secrets",1]', []),
        ("a list in the list", '[["secrets"],"opened"]', []),
        ("a list twice", '["secrets"],"features":["secrets"]', []),
    ]
    made = []
    for name, given, known in rows:
        plain = f'{{"version":1,"role":"peer","protocol":2,"features":{given}}}'.encode()
        sealed = run.sealed("peer", plain)
        made.append({"name": name, "plaintext": plain.hex(), "sealed": sealed.hex(), "features": known})
    return made


def digits(plain: bytes) -> str:
    """In hexadecimal digits; a byte that comes many times in a row is written once."""
    runs = re.finditer(rb"(?s)(.)\1{200,}|(?:(.)(?!\2{200,}))+", plain)
    return " ".join(f"{run[0][:1].hex()}*{len(run[0])}" if run[1] else run[0].hex() for run in runs)


# --- the worked example


def example(run: Run) -> str:
    cost = 64 + len(b"hello")
    said = [
        ("host control 0", "host", CONTROL, 0, state(0, 0, 0)),
        ("peer control 0", "peer", CONTROL, 0, state(0, 0, 0)),
        ("host control 1", "host", CONTROL, 1, state(0, 0, 1)),
        ("peer control 1", "peer", CONTROL, 1, state(0, 0, 1)),
        ("host data 0", "host", DATA, 0, text(1, b"hello")),
        ("peer data 0", "peer", DATA, 0, receipt(1)),
        ("host control 2", "host", CONTROL, 2, state(1, 1, 1, ask=True)),
        ("peer control 2", "peer", CONTROL, 2, state(1, 1, 1, dealt=cost)),
        ("host data 1", "host", DATA, 1, close(0)),
        ("host control 3", "host", CONTROL, 3, state(1, 2, 1, ask=True)),
        ("peer control 3", "peer", CONTROL, 3, state(2, 1, 1, dealt=cost)),
        ("peer data 1", "peer", DATA, 1, close(0)),
    ]
    lines = [
        ("password", RUN["code"]),
        ("w, 48 bytes", run.wide.hex()),
        ("w", (int.from_bytes(run.wide) % ORDER).to_bytes(32).hex()),
        ("x", run.scalar["host"].to_bytes(32).hex()),
        ("y", run.scalar["peer"].to_bytes(32).hex()),
        ("host SPAKE2", run.spake["host"].hex()),
        ("peer SPAKE2", run.spake["peer"].hex()),
        ("Z", run.z.hex()),
        ("K", run.k.hex()),
        ("0.1 key, host to peer", run.legacy["host"].hex()),
        ("0.1 key, peer to host", run.legacy["peer"].hex()),
        ("peer version", run.version["peer"].decode()),
        ("peer version sealed", run.sealed("peer", run.version["peer"]).hex()),
        ("host version", run.version["host"].decode()),
        ("host version sealed", run.sealed("host", run.version["host"]).hex()),
        ("S", run.s.hex()),
        ("key, host to peer", run.key["host"].hex()),
        ("key, peer to host", run.key["peer"].hex()),
        ("kr", run.kr.hex()),
    ]
    for name, role, kind, number, plain in said:
        lines += [(f"{name} plain", plain.hex()), (f"{name} record", run.record(role, kind, number, plain).hex())]
    shown = []
    for name, value in lines:
        rows = [value[at : at + 96] for at in range(0, len(value), 96)]
        shown += [f"{name}: {rows[0]}", *(f"  {row}" for row in rows[1:])]
    return "\n".join(shown)


def main() -> None:
    run = Run()
    about = (
        "What comes to a host after the handshake of `handshake.json`, whose keys seal it. `steps`: a plaintext sealed as "
        "`kind` and `number` (by `from`, where it is not the peer), of which bytes are then altered (`alter`: offset, from "
        "the end where negative, and the bits that change); `record` is the whole of it; or a `frame` as it is. `outcome` is "
        "`ok`, `tampered`, or a fault as in `sessions.json`; `next` is the data record expected afterwards; `due` says "
        "whether a `state` is due at once and whether it says `again`. `proofs`: last frames of a resume. `versions`: of the "
        "peer, with the verdicts of `handshake.json`; where `sealed` is absent, the reader seals the plaintext likewise. `20*9` "
        "is a byte nine times. `features`: versions of the peer, and what of their `features` counts for a host that has named "
        "all three."
    )
    made = {"about": about, "cases": records(run), "proofs": proofs(run), "versions": versions(run)}
    made["features"] = features(run)
    (HERE / "records.json").write_text(json.dumps(made, indent=2, ensure_ascii=False) + "\n")
    before = DOCUMENT.read_text()
    after = re.sub(r"```example\n.*?```", lambda _: f"```example\n{example(run)}\n```", before, flags=re.DOTALL)
    DOCUMENT.write_text(after)


if __name__ == "__main__":
    main()
