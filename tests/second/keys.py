"""Keys and what is done with them: SPAKE2, the key schedule, sealing, the proofs of a new direct connection.

Of `src/PROTOCOL.md`: "SPAKE2", "Keys", the table of "Direct mode after a drop".
"""

import hmac
import os
from collections.abc import Callable
from hashlib import sha256

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from spake2 import SPAKE2_A, SPAKE2_B

HOST, PEER = "host", "peer"
SPAKE_LENGTH = 33
CHALLENGE_LENGTH = 32
DIRECTION = {HOST: "host-to-peer", PEER: "peer-to-host"}


class Tampered(Exception):
    """A frame does not open."""


def other(role: str) -> str:
    return PEER if role == HOST else HOST


class Pake:
    """One side of SPAKE2: one message, and what follows from each message of the other side."""

    def __init__(self, role: str, password: bytes, entropy: Callable[[int], bytes] = os.urandom):
        self._side = SPAKE2_A if role == HOST else SPAKE2_B
        started = self._side(password, entropy_f=entropy)
        self.message: bytes = started.start()
        # The library finishes an exchange once; a host may have to judge more than one visitor.
        self._started = started.serialize()

    def shared(self, message: bytes) -> bytes | None:
        """`K`, or nothing where the message is malformed."""
        if len(message) != SPAKE_LENGTH:
            return None
        try:
            return self._side.from_serialized(self._started).finish(message)
        except Exception:  # The library says it in many ways, the curve's own exception among them.
            return None


def expand(key: bytes, salt: bytes | None, info: str) -> bytes:
    return HKDF(SHA256(), 32, salt, info.encode()).derive(key)


def legacy_keys(shared: bytes) -> dict[str, bytes]:
    """What each role seals its version with."""
    return {role: expand(shared, None, info) for role, info in DIRECTION.items()}


def transcript(spakes: dict[str, bytes], versions: dict[str, bytes]) -> bytes:
    """`S`, the salt of the keys of protocol 2."""
    parts = [spakes[HOST], spakes[PEER], versions[HOST], versions[PEER]]
    return sha256(b"".join(len(part).to_bytes(4) + part for part in parts)).digest()


def record_keys(shared: bytes, salt: bytes) -> dict[str, bytes]:
    """What each role seals its records with."""
    return {role: expand(shared, salt, f"agent-wormhole/2 {info}") for role, info in DIRECTION.items()}


def resume_key(shared: bytes, spakes: dict[str, bytes]) -> bytes:
    """`kr`."""
    return expand(shared, sha256(spakes[HOST] + spakes[PEER]).digest(), "agent-wormhole/2 resume")


def seal_legacy(key: bytes, counter: int, plain: bytes) -> bytes:
    return AESGCM(key).encrypt(counter.to_bytes(12), plain, None)


def open_legacy(key: bytes, counter: int, sealed: bytes) -> bytes:
    try:
        return AESGCM(key).decrypt(counter.to_bytes(12), sealed, None)
    except (InvalidTag, ValueError) as error:
        raise Tampered from error


def seal_record(key: bytes, kind: int, number: int, plain: bytes) -> bytes:
    header = kind.to_bytes(1) + number.to_bytes(8)
    return header + AESGCM(key).encrypt(kind.to_bytes(4) + header[1:], plain, header)


def open_record(key: bytes, record: bytes) -> bytes:
    """The plaintext of a record that has been looked at: its kind is known, and it has room for a tag."""
    header = record[:9]
    try:
        return AESGCM(key).decrypt(bytes(3) + header, record[9:], header)
    except InvalidTag as error:
        raise Tampered from error


def proof(key: bytes, role: str, peer_challenge: bytes, host_challenge: bytes) -> bytes:
    """That `role` has `kr`."""
    return hmac.digest(key, role.encode() + peer_challenge + host_challenge, "sha256")


def is_proof(claimed: bytes, key: bytes, role: str, peer_challenge: bytes, host_challenge: bytes) -> bool:
    return hmac.compare_digest(claimed, proof(key, role, peer_challenge, host_challenge))
