"""Checks this implementation against the known answers of `tests/vectors/`."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path

from spake2 import SPAKE2_A

from . import keys, wordcode
from .handshake import Handshake
from .keys import HOST, PEER, other
from .messages import (
    KINDS,
    REASONS,
    REFUSALS,
    TEXT,
    Cancel,
    Chunk,
    Close,
    Head,
    Malformed,
    Opened,
    Receipt,
    State,
)
from .messages import encode, messages, state
from .session import CONTROL, DATA, Session

# What cannot be read has one name for a session, whatever was wrong with it.
UNREADABLE = ("tag", "length", "body", "record")


def expand(digits: str) -> bytes:
    """Hexadecimal digits; `6e*9` among them is a byte nine times."""
    parts = (part.split("*") for part in digits.split())
    return b"".join(bytes.fromhex(part[0]) * int((part[1:] or ["1"])[0]) for part in parts)


def same(found: object, known: object, name: str) -> None:
    if found != known:
        raise AssertionError(f"{name}: {found!r} and not {known!r}")


def named(case: dict) -> Head | Chunk | Cancel | Receipt | Opened | Close:
    """The message that a vector describes."""
    item = case.get("item", 0)
    match case["message"]:
        case "head":
            members = {name: case[name] for name in ("group", "size", "executable", "mtime") if name in case}
            inline = expand(case["inline"]) if "inline" in case else None
            return Head(item, KINDS.index(case["kind"]), case["path"], inline=inline, **members)
        case "chunk":
            return Chunk(item, case["last"], expand(case["content"]))
        case "cancel":
            return Cancel(item, REFUSALS.index(case["reason"]))
        case "receipt":
            return Receipt(item, REFUSALS.index(case["refused"]) if "refused" in case else None)
        case "opened":
            return Opened(item, case["at"])
        case _:
            return Close(REASONS.index(case["reason"]))


def codes(known: dict) -> Iterator[str]:
    for case in known["cases"]:
        try:
            outcome = {"code": wordcode.parse(case["typed"], case.get("any_words", False))[1]}
        except wordcode.CodeError as error:
            outcome = {"error": str(error)}
        same(outcome, {name: case[name] for name in ("code", "error") if name in case}, case["typed"])
        yield case["typed"]


def of_messages(known: dict) -> Iterator[str]:
    for case in known["encoded"]:
        same(encode(named(case)), expand(case["bytes"]), case["name"])
    for case in known["encoded"] + known["read"]:
        same(list(messages(expand(case["bytes"]))), [named(case)], case["name"])
        yield case["name"]
    for case in known["states"]:
        members = {name: case[name] for name in State.__dataclass_fields__}
        same(encode(State(**members)), expand(case["bytes"]), case["name"])
        same(asdict(state(expand(case["bytes"]))), members, case["name"])
        yield case["name"]
    for cases, read in ((known["refused"], lambda record: next(messages(record))), (known["refused_states"], state)):
        for case in cases:
            try:
                outcome = read(expand(case["bytes"]))
            except Malformed as error:
                outcome = str(error)
            same(outcome, case["error"], case["name"])
            yield case["name"]


class Known:
    """The run of `handshake.json`, and this implementation as either end of it."""

    def __init__(self, known: dict):
        self.known = known
        self.password = known["code"].encode()
        self.spakes = {role: expand(known[role]["spake"]) for role in (HOST, PEER)}
        self.versions = {role: known[role]["version"].encode() for role in (HOST, PEER)}
        self.shared = expand(known["shared_key"])
        both = {HOST: "host_to_peer", PEER: "peer_to_host"}
        self.keys = {role: expand(known["keys"][way]) for role, way in both.items()}
        self.legacy = {role: expand(known["legacy_keys"][way]) for role, way in both.items()}

    def entropy(self, role: str):
        """The random scalar of a role, which the library reads with its highest byte first."""
        return lambda _: expand(self.known[role]["scalar_wide"])[::-1]

    def handshake(self, role: str) -> Handshake:
        return Handshake(role, self.password, self.entropy(role), self.versions[role])

    def session(self, role: str) -> tuple[Session, list[tuple[str, dict]]]:
        """A session whose link is up and which has proven the other end; its first `state` has been sent."""
        told: list[tuple[str, dict]] = []
        session = Session(role, self.password, lambda *event: told.append(event), self.entropy(role))
        session.handshake.version = self.versions[role]
        session.link_up(0.0)
        session.receive(self.spakes[other(role)], 0.0)
        session.receive(expand(self.known[other(role)]["sealed_version"]), 0.0)
        own = [self.spakes[role], expand(self.known[role]["sealed_version"])]
        same([session.transmit(0.0), session.transmit(0.0)], own, "own handshake")
        first = [case for case in self.known["records"] if case["name"] == f"first state of the {role}"]
        same(session.transmit(0.0), expand(first[0]["record"]), "first state")
        told.clear()
        return session, told


def handshakes(known: dict) -> Iterator[str]:
    run = Known(known)
    for role in (HOST, PEER):
        pake = keys.Pake(role, run.password, run.entropy(role))
        same(pake.message, run.spakes[role], "SPAKE2 message")
        same(pake.shared(run.spakes[other(role)]), run.shared, "shared key")
        same(keys.legacy_keys(run.shared), run.legacy, "keys of 0.1")
        sealed = keys.seal_legacy(run.legacy[role], 0, run.versions[role])
        same(sealed, expand(known[role]["sealed_version"]), "sealed version")
    salt = keys.transcript(run.spakes, run.versions)
    same(salt, expand(known["salt"]), "salt")
    same(keys.record_keys(run.shared, salt), run.keys, "keys")
    yield "keys"
    resume = known["resume"]
    kr = keys.resume_key(run.shared, run.spakes)
    same(kr, expand(resume["key"]), "resume key")
    challenges = expand(resume["peer_challenge"]), expand(resume["host_challenge"])
    frames = [b"R\x01" + challenges[0], b"R\x02" + challenges[1] + keys.proof(kr, HOST, *challenges)]
    frames.append(b"R\x03" + keys.proof(kr, PEER, *challenges))
    same(frames, [expand(frame) for frame in resume["frames"]], "resume")
    yield "resume"
    for case in known["records"]:
        key, plain = run.keys[case["from"]], expand(case["plaintext"])
        sealed = keys.seal_record(key, case["kind"], case["number"], plain)
        same(sealed, expand(case["record"]), case["name"])
        same(keys.open_record(key, sealed), plain, case["name"])
        yield case["name"]
    for case in known["verdicts"]:
        handshake = run.handshake(case["role"])
        handshake.link_up(0.0)
        answers = [answer for frame in case["frames"] for answer in handshake.receive(expand(frame), 0.0)]
        verdict = handshake.verdict or "none"
        if verdict == "proven":
            verdict = f"protocol {2 if handshake.protocol >= 2 else 1}"
        same(verdict, case["verdict"], case["name"])
        if case["role"] == HOST:
            same(len(answers), verdict not in ("none", "unproven"), case["name"])
        yield case["name"]
    for case in known["with_a_0_1_peer"]["envelopes"]:
        plain = keys.open_legacy(run.legacy[case["from"]], case["counter"], expand(case["sealed"]))
        same(plain, case["json"].encode(), case["json"])
        yield case["json"]


def sessions(known: dict, handshake: dict) -> Iterator[str]:
    run = Known(handshake)
    for case in known["cases"]:
        session, told = run.session(HOST)
        texts = b"".join(encode(Head(item, TEXT, "", inline=b"")) for item in range(1, case.get("texts", 0) + 1))
        for number, plain in enumerate([texts] * bool(texts) + [expand(plain) for plain in case["records"]]):
            session.receive(keys.seal_record(run.keys[PEER], DATA, number, plain), 0.0)
        faults = [about["fault"] for name, about in told if name == "fault"]
        outcome = (faults or ["ok"])[0]
        same("frame" if outcome in UNREADABLE else outcome, case["outcome"], case["name"])
        yield case["name"]


def records(known: dict, handshake: dict) -> Iterator[str]:
    run = Known(handshake)
    for case in known["cases"]:
        session, told = run.session(HOST)
        for step in case["steps"]:
            if "plaintext" in step:
                role, plain = step.get("from", PEER), expand(step["plaintext"])
                sealed = bytearray(keys.seal_record(run.keys[role], step["kind"], step["number"], plain))
                for at, bits in step.get("alter", {}).items():
                    sealed[int(at)] ^= bits
                same(bytes(sealed), expand(step["record"]), case["name"])
            session.receive(expand(step.get("record", step.get("frame"))), 0.0)
        faults = [about["fault"] for name, about in told if name == "fault"]
        outcome = (faults or ["ok"])[0]
        same("frame" if outcome in UNREADABLE else outcome, case["outcome"], case["name"])
        states = sent_states(session, run.keys[HOST])
        if not faults:
            due = ("again" if states[0].again else "state") if states else None
            same(due, case["due"], case["name"])
            # Whatever was due, it answers who asks.
            ask = encode(State(0, 0, 0, 0, 1, 1, True, False))
            session.receive(keys.seal_record(run.keys[PEER], CONTROL, 1000, ask), 0.0)
            states = sent_states(session, run.keys[HOST])
        same(states[-1].next, case["next"], case["name"])
        yield case["name"]
    challenges = [expand(handshake["resume"][name]) for name in ("peer_challenge", "host_challenge")]
    for case in known["proofs"]:
        claimed = expand(case["frame"])[34 if case["from"] == HOST else 2 :]
        proves = keys.is_proof(claimed, expand(handshake["resume"]["key"]), case["from"], *challenges)
        same(proves, case["proves"], case["name"])
        yield case["name"]
    for case in known["versions"] + known["features"]:
        sealed = keys.seal_legacy(run.legacy[PEER], 0, expand(case["plaintext"]))
        same(sealed, expand(case["sealed"]) if "sealed" in case else sealed, case["name"])
        host = run.handshake(HOST)
        host.link_up(0.0)
        host.receive(run.spakes[PEER], 0.0)
        host.receive(sealed, 0.0)
        verdict = f"protocol {2 if host.protocol >= 2 else 1}" if host.verdict == "proven" else host.verdict
        same(verdict, case.get("verdict", "protocol 2"), case["name"])
        same(sorted(host.common), sorted(case.get("features", host.common)), case["name"])
        yield case["name"]


def sent_states(session: Session, key: bytes) -> list[State]:
    """The states among what a session sends now."""
    frames = iter(lambda: session.transmit(0.0), None)
    return [state(keys.open_record(key, frame)) for frame in frames if frame[0] == CONTROL]


def example(document: str, handshake: dict) -> Iterator[str]:
    """The worked example of the document, computed again from its password and scalars."""
    block = document.split("```example\n")[1].split("\n```")[0].replace("\n  ", "")
    shown = dict(line.split(": ", 1) for line in block.split("\n"))
    run = Known(handshake)
    pake, scalars = SPAKE2_A(shown["password"].encode()), {HOST: int(shown["x"], 16), PEER: int(shown["y"], 16)}
    group, blind = pake.params.group, {HOST: pake.params.M, PEER: pake.params.N}
    wide = int(shown["w, 48 bytes"], 16)
    w = group.password_to_scalar(shown["password"].encode())
    elements = {role: group.Base.scalarmult(scalars[role]).add(blind[role].scalarmult(w)) for role in (HOST, PEER)}
    z = elements[PEER].add(blind[PEER].scalarmult(-w)).scalarmult(scalars[HOST])
    spakes = {HOST: b"A" + elements[HOST].to_bytes(), PEER: b"B" + elements[PEER].to_bytes()}
    hashes = [sha256(part).digest() for part in (shown["password"].encode(), b"", b"")]
    shared = sha256(b"".join([*hashes, spakes[HOST][1:], spakes[PEER][1:], z.to_bytes()])).digest()
    versions = {role: shown[f"{role} version"].encode() for role in (HOST, PEER)}
    legacy, salt = keys.legacy_keys(shared), keys.transcript(spakes, versions)
    sealing = keys.record_keys(shared, salt)
    computed = {
        "password": run.password.decode(), "w, 48 bytes": f"{wide:096x}", "w": f"{wide % group.order():064x}",
        "x": f"{scalars[HOST]:064x}", "y": f"{scalars[PEER]:064x}", "Z": z.to_bytes().hex(), "K": shared.hex(),
        "S": salt.hex(), "kr": keys.resume_key(shared, spakes).hex(),
        "0.1 key, host to peer": legacy[HOST].hex(), "0.1 key, peer to host": legacy[PEER].hex(),
        "key, host to peer": sealing[HOST].hex(), "key, peer to host": sealing[PEER].hex(),
    }  # fmt: skip
    same(w, wide % group.order(), "w")
    for role in (HOST, PEER):
        sealed = keys.seal_legacy(legacy[role], 0, versions[role])
        computed |= {f"{role} SPAKE2": spakes[role].hex(), f"{role} version": versions[role].decode()}
        computed[f"{role} version sealed"] = sealed.hex()
    for name in [name.removesuffix(" plain") for name in shown if name.endswith(" plain")]:
        role, kind, number = name.split()
        plain = bytes.fromhex(shown[f"{name} plain"])
        said = [state(plain)] if kind == "control" else list(messages(plain))
        same(b"".join(map(encode, said)), plain, name)
        record = keys.seal_record(sealing[role], CONTROL if kind == "control" else DATA, int(number), plain)
        computed |= {f"{name} plain": plain.hex(), f"{name} record": record.hex()}
    for name in shown | computed:
        same(computed.get(name), shown.get(name), name)
        yield name


def check(directory: Path, document: Path) -> int:
    """Goes through all files and says how many cases there were."""
    known = {path.stem: json.loads(path.read_text()) for path in sorted(directory.glob("*.json"))}
    suites = {
        "codes": codes(known["codes"]),
        "handshake": handshakes(known["handshake"]),
        "messages": of_messages(known["messages"]),
        "records": records(known["records"], known["handshake"]),
        "sessions": sessions(known["sessions"], known["handshake"]),
    }
    # What a name or a text may look like is the business of whoever shows it.
    same(sorted([*suites, "hostile_texts"]), sorted(known), "files")
    suites["example"] = example(document.read_text(), known["handshake"])
    for name, cases in suites.items():
        print(f"{name}: {len(list(cases))} cases", flush=True)
    return 0
