"""Messages as bytes, and the part of CBOR that they need (`src/PROTOCOL.md`, "Messages").

What is read here comes from the other end: nothing is believed, and nothing is allocated by a length that is not there.
"""

from collections.abc import Iterator
from dataclasses import dataclass

TEXT, FILE, DIR, GROUP, SECRET, ASK, ANSWER = range(7)
KINDS = ("text", "file", "dir", "group", "secret", "ask", "answer")
REFUSALS = (
    "cancelled", "changed", "unreadable", "too large", "no space", "bad name", "storage failed", "closing",
    "wrong size", "unsupported", "bad text", "name used", "not asked",
)  # fmt: skip
REASONS = ("done", "stopped", "tampered", "protocol", "used up", "idle", "internal")
MAX_NAME, MAX_INLINE, MAX_CBOR = 4096, 16384, 20736
U64 = (1 << 64) - 1
MESSAGE_HEADER = 5
CHUNK_HEADER = 9


class Malformed(Exception):
    """Cannot be read; the text is the name that `tests/vectors/messages.json` gives to the reason."""


@dataclass(frozen=True, slots=True)
class Head:
    item: int
    kind: int
    name: str
    group: int | None = None
    size: int | None = None
    executable: bool = False
    mtime: int | None = None
    inline: bytes | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    item: int
    last: bool
    content: bytes


@dataclass(frozen=True, slots=True)
class Cancel:
    item: int
    reason: int


@dataclass(frozen=True, slots=True)
class Receipt:
    item: int
    refused: int | None = None


@dataclass(frozen=True, slots=True)
class Opened:
    item: int
    at: int


@dataclass(frozen=True, slots=True)
class Close:
    reason: int


@dataclass(frozen=True, slots=True)
class State:
    next: int
    grant_bulk: int
    grant_prompt: int
    end: int
    link: int
    echo: int
    ask: bool
    again: bool


Message = Head | Chunk | Cancel | Receipt | Opened | Close

# Of each message that is a map: its tag, and of each key the member, its type, whether it must be there, and the
# highest number or the greatest length.
MAPS = {
    Head: (1, {
        0: ("item", int, True, U64), 1: ("kind", int, True, len(KINDS) - 1), 2: ("group", int, False, U64),
        3: ("name", str, True, MAX_NAME), 4: ("size", int, False, U64), 5: ("executable", bool, False, None),
        6: ("mtime", "i64", False, None), 7: ("inline", bytes, False, MAX_INLINE),
    }),
    Cancel: (3, {0: ("item", int, True, U64), 1: ("reason", int, True, len(REFUSALS) - 1)}),
    Receipt: (4, {0: ("item", int, True, U64), 1: ("refused", int, False, len(REFUSALS) - 1)}),
    Close: (5, {0: ("reason", int, True, len(REASONS) - 1)}),
    Opened: (7, {0: ("item", int, True, U64), 1: ("at", int, True, U64)}),
    State: (6, {
        **{key: (name, int, True, U64) for key, name in
           enumerate(("next", "grant_bulk", "grant_prompt", "end", "link", "echo"))},
        6: ("ask", bool, True, None), 7: ("again", bool, True, None),
    }),
}  # fmt: skip
BY_TAG = {tag: kind for kind, (tag, _) in MAPS.items()}
CHUNK_TAG, STATE_TAG = 2, 6


# --- writing


def argument(major: int, number: int) -> bytes:
    """The shortest head of a CBOR item."""
    if number < 24:
        return bytes([major << 5 | number])
    for info, width in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if number < 1 << 8 * width:
            return bytes([major << 5 | info]) + number.to_bytes(width)
    raise ValueError(number)


def value(given: bool | int | str | bytes) -> bytes:
    match given:
        case bool():
            return b"\xf5" if given else b"\xf4"
        case int():
            return argument(0, given) if given >= 0 else argument(1, -1 - given)
        case str():
            return argument(3, len(given.encode())) + given.encode()
        case _:
            return argument(2, len(given)) + given


def encode(message: Message | State) -> bytes:
    if isinstance(message, Chunk):
        tag, body = CHUNK_TAG, message.item.to_bytes(8) + bytes([message.last]) + message.content
    else:
        tag, members = MAPS[type(message)]
        fields = {key: getattr(message, name) for key, (name, *_) in members.items()}
        # What is absent is left out, and so is an `executable` that is false; a state says everything.
        left_out = (None,) if isinstance(message, State) else (None, False)
        fields = {key: field for key, field in fields.items() if not any(field is out for out in left_out)}
        body = argument(5, len(fields)) + b"".join(value(key) + value(field) for key, field in fields.items())
    return bytes([tag]) + len(body).to_bytes(4) + body


# --- reading


class Reader:
    """CBOR items from the front of some bytes."""

    def __init__(self, data: bytes):
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        if count > len(self.data) - self.at:
            raise Malformed("body")
        self.at += count
        return self.data[self.at - count : self.at]

    def head(self) -> tuple[int, int, int | None]:
        """Major type, the five bits beside it, and the number; there is none where the length is indefinite."""
        first = self.take(1)[0]
        major, info = first >> 5, first & 31
        if info < 24:
            return major, info, info
        if info < 28:
            return major, info, int.from_bytes(self.take(1 << info - 24))
        if info == 31 and major in (2, 3, 4, 5, 7):
            return major, info, None
        raise Malformed("body")

    def scalar(self) -> int | str | bytes | bool | None:
        """A number, a string, a bool, or null."""
        major, info, number = self.head()
        if number is None or major in (4, 5, 6):
            raise Malformed("body")
        if major < 2:
            return number if major == 0 else -1 - number
        if major == 2:
            return self.take(number)
        if major == 3:
            return self.text(number)
        if info in (20, 21, 22):
            return (False, True, None)[info - 20]
        raise Malformed("body")

    def text(self, length: int) -> str:
        try:
            return self.take(length).decode()
        except UnicodeDecodeError as error:
            raise Malformed("body") from error

    def string(self, major: int, length: int | None) -> None:
        """Skips a string, or one in pieces."""
        if length is None:
            while self.data[self.at : self.at + 1] != b"\xff":
                piece, _, count = self.head()
                if piece != major or count is None:
                    raise Malformed("body")
                self.string(major, count)
            self.at += 1
        elif major == 3:
            self.text(length)
        else:
            self.take(length)

    def skip(self) -> None:
        """Whatever comes, however deep: `levels` counts what is still to come in each, from the outermost."""
        levels: list[int | None] = [1]
        while levels:
            if levels[-1] == 0:
                levels.pop()
                continue
            if levels[-1] is not None:
                levels[-1] -= 1
            major, info, number = self.head()
            if major == 7 and info == 31:  # the end of an indefinite length
                if levels[-1] is not None:
                    raise Malformed("body")
                levels.pop()
            elif major in (2, 3):
                self.string(major, number)
            elif major in (4, 5):
                levels.append(None if number is None else number * (major - 3))
            elif major == 6:
                levels.append(1)

    def map(self, members: dict) -> dict:
        """A map that fills the bytes, of which `members` says what is known."""
        major, _, count = self.head()
        if major != 5:
            raise Malformed("body")
        found: dict = {}
        while count is None or count > 0:
            if count is None and self.data[self.at : self.at + 1] == b"\xff":
                self.at += 1
                break
            count = None if count is None else count - 1
            key_major, _, number = self.head()
            if key_major > 1 or number >= 1 << 63:
                raise Malformed("body")
            key = number if key_major == 0 else -1 - number
            if key in members:
                name, kind, mandatory, highest = members[key]
                field = self.scalar()
                check(field, kind, mandatory, highest)
                found[name] = field
            else:
                self.skip()
        if self.at != len(self.data):
            raise Malformed("body")
        for name, _, mandatory, _ in members.values():
            if mandatory and name not in found:
                raise Malformed("body")
        return {name: field for name, field in found.items() if field is not None}


def check(field: object, kind: type | str, mandatory: bool, highest: int | None) -> None:
    """Holds if a member has its type and range."""
    if field is None and not mandatory:
        return
    if kind == "i64":
        fine = type(field) is int and -(1 << 63) <= field < 1 << 63
    elif kind is int:
        fine = type(field) is int and 0 <= field <= highest
    elif kind is bool:
        fine = type(field) is bool
    elif kind is str:
        fine = type(field) is str and len(field.encode()) <= highest
    else:
        fine = type(field) is bytes and len(field) <= highest
    if not fine:
        raise Malformed("body")


def split(record: bytes) -> tuple[int, bytes, bytes]:
    """Tag and body of the first message, and what follows."""
    tag, length = record[0], int.from_bytes(record[1:MESSAGE_HEADER])
    body = record[MESSAGE_HEADER : MESSAGE_HEADER + length]
    if tag not in (CHUNK_TAG, *BY_TAG):
        raise Malformed("tag")
    if len(record) < MESSAGE_HEADER or len(body) < length:
        raise Malformed("length")
    return tag, body, record[MESSAGE_HEADER + length :]


def messages(record: bytes) -> Iterator[Message]:
    """The messages of a data record, one by one: those before a fault are handed out."""
    rest = record
    while rest:
        tag, body, rest = split(rest)
        if tag == CHUNK_TAG:
            yield chunk(body)
        elif tag == STATE_TAG:
            raise Malformed("tag")
        elif len(body) > MAX_CBOR:
            raise Malformed("length")
        else:
            kind = BY_TAG[tag]
            yield kind(**Reader(body).map(MAPS[kind][1]))


def chunk(body: bytes) -> Chunk:
    if len(body) < CHUNK_HEADER:
        raise Malformed("length")
    if body[8] > 1:
        raise Malformed("body")
    return Chunk(int.from_bytes(body[:8]), body[8] == 1, body[CHUNK_HEADER:])


def state(record: bytes) -> State:
    """The one message of a control record."""
    if not record:
        raise Malformed("length")
    tag, body, rest = split(record)
    if tag != STATE_TAG:
        raise Malformed("tag")
    if rest:
        raise Malformed("length")
    return State(**Reader(body).map(MAPS[State][1]))
