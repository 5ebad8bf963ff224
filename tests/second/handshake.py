"""Four frames, after which both ends know that they hold the same code (`src/PROTOCOL.md`, "Handshake")."""

import json
import os
from collections.abc import Callable

from . import keys
from .keys import HOST, SPAKE_LENGTH, Tampered

MAX_VERSION = 16384
FIRST_MESSAGE, VERSION_OF_PEER, VERSION_OF_HOST = 10.0, 10.0, 30.0
# What this end knows besides, and says so.
FEATURES = ("secrets", "questions", "opened")
# What is read of a version, but for `features`, which is never wrong.
TYPES = {"version": int, "role": str, "protocol": int, "agent": (str, type(None))}


class Handshake:
    """One end. `verdict` is none at first, then `unproven` (a host awaits the next link), `failed` or `proven`."""

    def __init__(
        self,
        role: str,
        password: bytes,
        entropy: Callable[[int], bytes] = os.urandom,
        version: bytes | None = None,
        features: tuple[str, ...] = FEATURES,
    ):
        self.role = role
        self.features = features
        # Those that both ends have named, where the other is proven.
        self.common: frozenset[str] = frozenset()
        self.pake = keys.Pake(role, password, entropy)
        self.version = version or json.dumps(
            {"version": 1, "role": role, "protocol": 2, "features": features, "agent": "second/1"}
        ).encode()
        self.verdict: str | None = None
        # The other end's number, where it is proven.
        self.protocol = 0
        # What is sent at the start of each link.
        self.own = [self.pake.message]
        # The frames of the other end that counted; they are ignored later.
        self.accepted: list[bytes] = []
        self.spake: bytes | None = None
        self._shared: bytes | None = None
        self._their_version = b""
        self._deadline = float("inf")
        # This link has carried a SPAKE2 message: more of them win no time.
        self._greeted = False

    def link_up(self, now: float) -> list[bytes]:
        """What a new link begins with. A direct host's clock starts with each connection, a relay's with `paired`."""
        if self.verdict in (None, "unproven"):
            self.verdict = None
            self._greeted = False
            self._deadline = now + (FIRST_MESSAGE if self.role == HOST else VERSION_OF_HOST)
        return list(self.own)

    def deadline(self) -> float:
        return self._deadline if self.verdict is None else float("inf")

    def tick(self, now: float) -> None:
        if now >= self.deadline():
            self._unproven() if self.role == HOST else self._fail()

    def longest(self) -> int:
        """The longest frame that may come now."""
        return MAX_VERSION if self.spake else SPAKE_LENGTH

    def receive(self, frame: bytes, now: float) -> list[bytes]:
        """What is sent in answer."""
        return self._host(frame, now) if self.role == HOST else self._peer(frame)

    def _host(self, frame: bytes, now: float) -> list[bytes]:
        if len(frame) == SPAKE_LENGTH:
            if not self._greeted:
                self._deadline = now + VERSION_OF_PEER
            self._greeted = True
            self.spake = frame
            return []
        shared = self.pake.shared(self.spake) if self.spake else None
        if shared is None or len(frame) > MAX_VERSION:
            self._unproven()
            return []
        self._judge(shared, frame)
        # Also after a wrong guess: the other end fails by the same proof.
        return [self._seal_version(shared)]

    def _peer(self, frame: bytes) -> list[bytes]:
        if self.spake is None:
            self._shared = self.pake.shared(frame)
            if self._shared is None:
                self._fail()
                return []
            self.spake = frame
            return [self._seal_version(self._shared)]
        if len(frame) == SPAKE_LENGTH:
            return []
        if len(frame) > MAX_VERSION:
            self._fail()
        else:
            self._judge(self._shared, frame)
        return []

    def _seal_version(self, shared: bytes) -> bytes:
        sealed = keys.seal_legacy(keys.legacy_keys(shared)[self.role], 0, self.version)
        self.own.append(sealed)
        return sealed

    def _judge(self, shared: bytes, frame: bytes) -> None:
        theirs = keys.other(self.role)
        try:
            self._their_version = keys.open_legacy(keys.legacy_keys(shared)[theirs], 0, frame)
            self.protocol, named = read_version(self._their_version, theirs)
        except (Tampered, ValueError, RecursionError):
            self._fail()
            return
        self.verdict = "proven"
        self.common = named.intersection(self.features)
        self.accepted = [self.spake, frame]
        self._shared = shared

    def _fail(self) -> None:
        self.verdict = "failed"

    def _unproven(self) -> None:
        self.verdict = "unproven"
        self.spake = None

    def schedule(self) -> tuple[dict[str, bytes], bytes]:
        """What each role seals records with, and `kr`; what they were made of is forgotten."""
        theirs = keys.other(self.role)
        spakes = {self.role: self.pake.message, theirs: self.spake}
        versions = {self.role: self.version, theirs: self._their_version}
        shared, self._shared = self._shared, None
        salt = keys.transcript(spakes, versions)
        return keys.record_keys(shared, salt), keys.resume_key(shared, spakes)


def read_version(plain: bytes, role: str) -> tuple[int, frozenset[str]]:
    """The protocol that the other end speaks, and its features; `ValueError` where this is no version of `role`."""

    class Members(list):
        """Of an object, in pairs: only the outermost must not have one twice."""

    def whole(digits: str) -> int | str:
        """Python reads no number of thousands of digits; one of so many is beyond any member."""
        return int(digits) if len(digits) < 32 else digits

    def no_constant(name: str) -> None:
        raise ValueError(f"{name} is not JSON")

    pairs = json.loads(plain.decode(), object_pairs_hook=Members, parse_constant=no_constant, parse_int=whole)
    if not isinstance(pairs, Members):
        raise ValueError("not an object")
    names, version = [name for name, _ in pairs], dict(pairs)
    if any(names.count(name) > 1 for name in TYPES):
        raise ValueError("a member comes twice")
    for name, kind in TYPES.items():
        if name in version and (not isinstance(version[name], kind) or isinstance(version[name], bool)):
            raise ValueError(f"{name} has another type")
    # A lone surrogate has no UTF-8, which is a `ValueError`, too.
    "".join([*names, version.get("agent") or ""]).encode()
    if version.get("version") != 1 or version.get("role") != role:
        raise ValueError("another version or role")
    protocol = version.get("protocol", 0)
    if not 0 <= protocol < 1 << 64:
        raise ValueError("out of range")
    features = version.get("features")
    # An object would be a list here, too; with it, or with anything else in the list, nothing is named.
    fine = type(features) is list and names.count("features") == 1 and all(type(word) is str for word in features)
    return protocol, frozenset(features if fine else ())
