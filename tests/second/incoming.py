"""What the other end sends: items, their order, their limits and their receipts (`src/PROTOCOL.md`, "Items", "Flow").

Content is kept in memory until its item is whole; an item over `MAX_ITEM` is refused. What cannot be read at all is
`messages.Malformed`; what can be read and breaks a rule is `Fault`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from .messages import ANSWER, ASK, DIR, GROUP, REFUSALS, SECRET, TEXT, Cancel, Chunk, Head, Receipt
from .named import FEATURE_OF, NAMED, Named

BULK, PROMPT = "bulk", "prompt"
FIRST_GRANT = 64 << 10
WINDOWS = {BULK: 8 << 20, PROMPT: 2 << 20}
EACH_MESSAGE = 64
MAX_SKIPPED = 4096
MAX_UNANSWERED = 4096
MAX_OPEN_BULK = 16
MAX_TEXT = 1 << 20
MAX_ITEM = 1 << 30
# Those whose content is UTF-8, of at most `MAX_TEXT`.
TEXTS = (TEXT, ASK, ANSWER)
CANCELLED, TOO_LARGE, BAD_NAME, WRONG_SIZE, UNSUPPORTED, BAD_TEXT = (
    REFUSALS.index(name) for name in ("cancelled", "too large", "bad name", "wrong size", "unsupported", "bad text")
)


class Fault(Exception):
    """The other end broke the protocol; the text is the name that `tests/vectors/sessions.json` gives to it."""


def lane_of(head: Head) -> str:
    if head.kind == TEXT or head.kind in NAMED:
        return PROMPT
    if head.group is not None or head.kind == GROUP:
        return BULK
    return PROMPT if head.kind == DIR or head.inline is not None else BULK


def cost_of_head(head: Head) -> int:
    """What a head takes of its lane's grant."""
    if lane_of(head) == BULK and head.group is None:
        return 0
    return EACH_MESSAGE + len(head.name.encode()) + len(head.inline or b"")


def is_safe(name: str) -> bool:
    """Whether a file could be made under this name, inside of its place."""
    return all(part not in ("", ".", "..") and "\0" not in part for part in name.split("/"))


@dataclass(slots=True)
class Item:
    """One that has begun and not ended."""

    head: Head
    content: bytearray = field(default_factory=bytearray)
    refused: int | None = None
    # Of a group: the whole members, and how many are open.
    members: list[tuple[Head, bytes]] = field(default_factory=list)
    open_members: int = 0


class Incoming:
    """`arrived` is called with each whole item and its members, `refused` with each that will not; `receipts` are to be
    sent."""

    def __init__(
        self,
        arrived: Callable[[Head, bytes, list[tuple[Head, bytes]]], None],
        refused: Callable[[Head, int], None],
        features: tuple[str, ...],
    ):
        self._arrived = arrived
        self._refused = refused
        self._features = features
        self.named = Named()
        self.receipts: list[Receipt] = []
        self.used = {BULK: 0, PROMPT: 0}
        self.granted = {BULK: FIRST_GRANT, PROMPT: FIRST_GRANT}
        # Heads without a receipt that was sent.
        self.unanswered = 0
        # Nothing becomes visible any more.
        self.over = False
        self._open: dict[int, Item] = {}
        self._skipped: set[int] = set()
        self._highest = 0
        self._last_prompt = 0

    def grant(self, lane: str) -> int:
        """What the other end may send: here, content is dealt with as soon as it has come."""
        self.granted[lane] = max(self.granted[lane], self.used[lane] + WINDOWS[lane])
        return self.granted[lane]

    def stop(self) -> None:
        """Drops what has not arrived, for good. Receipts that wait still go."""
        self.over = True
        for item in self._open.values():
            item.content.clear()
            item.members.clear()

    def _pay(self, lane: str, cost: int) -> None:
        self.used[lane] += cost
        if self.used[lane] > self.granted[lane]:
            raise Fault("beyond grant")

    def _taken(self, number: int) -> bool:
        return number <= self._highest and number not in self._skipped

    def _take(self, number: int) -> None:
        if number == 0 or self._taken(number):
            raise Fault("item number")
        if number > self._highest:
            if len(self._skipped) + number - self._highest - 1 > MAX_SKIPPED:
                raise Fault("item number")
            self._skipped.update(range(self._highest + 1, number))
            self._highest = number
        self._skipped.discard(number)

    def head(self, head: Head) -> None:
        lane = lane_of(head)
        self._take(head.item)
        if lane == PROMPT:
            if head.item < self._last_prompt:
                raise Fault("item number")
            if any(lane_of(item.head) == PROMPT for item in self._open.values()):
                raise Fault("too many")
            self._last_prompt = head.item
        self._contradictions(head)
        self._pay(lane, cost_of_head(head))
        group = self._group(head)
        whole = head.inline is not None or head.kind == DIR
        if lane == BULK and not whole and len(self._bulk()) >= MAX_OPEN_BULK:
            raise Fault("too many")
        if group is None:
            if self.unanswered >= MAX_UNANSWERED:
                raise Fault("too many")
            self.unanswered += 1
        else:
            group.open_members += 1
        item = Item(head)
        self._open[head.item] = item
        refusal = self._refusal(head)
        if refusal is not None:
            self._refuse(item, refusal)
        if whole:
            item.content += head.inline or b""
            self._end(item)

    def _refusal(self, head: Head) -> int | None:
        """Why it is not taken, as far as its head tells."""
        if FEATURE_OF.get(head.kind, "") not in ("", *self._features):
            return UNSUPPORTED
        if head.kind in NAMED:
            refusal = self.named.refusal(head)
        else:
            refusal = None if head.kind == TEXT or is_safe(head.name) else BAD_NAME
        return self._too_large(head, head.size or 0) if refusal is None else refusal

    @staticmethod
    def _too_large(head: Head, size: int) -> int | None:
        if head.kind in TEXTS:
            return BAD_TEXT if size > MAX_TEXT else None
        return TOO_LARGE if size > MAX_ITEM else None

    def _bulk(self) -> list[Item]:
        return [item for item in self._open.values() if lane_of(item.head) == BULK]

    @staticmethod
    def _contradictions(head: Head) -> None:
        if head.inline is not None and (
            head.kind in (DIR, GROUP) or head.size not in (None, len(head.inline))
        ):
            raise Fault("contradiction")
        if head.group is not None and (head.kind in (TEXT, GROUP) or head.kind in NAMED):
            raise Fault("contradiction")
        if head.kind == SECRET and head.inline is None:
            raise Fault("contradiction")

    def _group(self, head: Head) -> Item | None:
        """The open group of a member."""
        if head.group is None:
            return None
        group = self._open.get(head.group)
        if group is None or group.head.kind != GROUP:
            raise Fault("group")
        return group

    def chunk(self, chunk: Chunk) -> None:
        item = self._open.get(chunk.item)
        if item is None:
            raise Fault("not open")
        if not chunk.content and not chunk.last or chunk.content and item.head.kind == GROUP:
            raise Fault("contradiction")
        self._pay(lane_of(item.head), EACH_MESSAGE + len(chunk.content))
        if not (self._dropped(item) or self.over):
            item.content += chunk.content
            if item.head.size is not None and len(item.content) > item.head.size:
                self._refuse(item, WRONG_SIZE)
            elif (refusal := self._too_large(item.head, len(item.content))) is not None:
                self._refuse(item, refusal)
        if chunk.last:
            if item.open_members and not self._dropped(item):
                raise Fault("contradiction")
            self._end(item)

    def _dropped(self, item: Item) -> bool:
        group = self._open.get(item.head.group)
        return item.refused is not None or group is not None and group.refused is not None

    def cancel(self, cancel: Cancel) -> None:
        item = self._open.get(cancel.item)
        if item is not None:
            self._refuse(item, cancel.reason)
            self._close(item)
        elif cancel.item == 0 or not self._taken(cancel.item):
            self._take(cancel.item)

    def _end(self, item: Item) -> None:
        """The last of its content is here."""
        head = item.head
        whole = not self._dropped(item) and not self.over
        if whole and head.size not in (None, len(item.content)) and head.kind != GROUP:
            self._refuse(item, WRONG_SIZE)
        elif whole and head.kind in TEXTS and not is_text(item.content):
            self._refuse(item, BAD_TEXT)
        elif whole and head.group is not None:
            self._open[head.group].members.append((head, bytes(item.content)))
        elif whole:
            if head.kind in NAMED:
                self.named.arrived(head, bytes(item.content))
            self._arrived(head, bytes(item.content), item.members)
            self.receipts.append(Receipt(head.item))
        self._close(item)

    def _close(self, item: Item) -> None:
        del self._open[item.head.item]
        # A group that goes takes with it the members that have not ended; what still comes of them is dropped.
        for member in self._open.values():
            if member.head.group == item.head.item:
                member.refused = item.refused
        group = self._open.get(item.head.group)
        if group is not None:
            group.open_members -= 1

    def _refuse(self, item: Item, reason: int) -> None:
        """Once for an item; a member refuses its group."""
        if item.head.group is not None:
            group = self._open.get(item.head.group)
            if group is not None:
                self._refuse(group, reason)
        elif item.refused is None and not self.over:
            self.receipts.append(Receipt(item.head.item, reason))
            self._refused(item.head, reason)
        item.refused = reason if item.refused is None else item.refused
        item.content.clear()
        item.members.clear()


def is_text(content: bytes) -> bool:
    try:
        return bool(content.decode() or True)
    except UnicodeDecodeError:
        return False
