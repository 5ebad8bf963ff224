"""What this end sends: items, in which order, and within which limits (`src/PROTOCOL.md`, "Items", "Lanes", "Flow").

`fill` makes the content of the next data record. Content is held in memory.
"""

from collections import deque
from dataclasses import dataclass, field, replace

from .incoming import (
    BULK,
    CANCELLED,
    EACH_MESSAGE,
    FIRST_GRANT,
    MAX_OPEN_BULK,
    MAX_SKIPPED,
    MAX_UNANSWERED,
    PROMPT,
    Fault,
    cost_of_head,
    lane_of,
)
from .messages import DIR, FILE, GROUP, MAX_INLINE, Cancel, Chunk, Head, Opened, Receipt, encode

OWN_RECORD = 16 << 10
FOR_MEMBERS = 4
MAX_GROUPS = 4
EACH_CHUNK = 14  # What a chunk has beside its content: the header of a message, and its own.


@dataclass(slots=True, eq=False)
class Item:
    head: Head
    content: bytearray
    # Whether all of the content is here.
    whole: bool = True
    begun: bool = False
    ended: bool = False
    sent: int = 0
    members: list["Item"] = field(default_factory=list)

    def ready(self, limit: int) -> tuple[int, bool] | None:
        """How much of it goes into the next chunk, and whether it ends with that."""
        if self.head.kind == GROUP:
            return (0, True) if all(member.ended for member in self.members) else None
        count = min(len(self.content) - self.sent, limit)
        last = self.whole and self.sent + count == len(self.content)
        return (count, last) if last or count > 0 else None


@dataclass(slots=True)
class Filled:
    """The messages of a record, and what of it is accounted for until it is acknowledged."""

    plain: bytearray = field(default_factory=bytearray)
    receipts: int = 0
    bulk: int = 0


class Outgoing:
    """`chunk_size` is that of the link. After `stop` only what waits as an answer is sent."""

    def __init__(self) -> None:
        self.grants = {BULK: FIRST_GRANT, PROMPT: FIRST_GRANT}
        self.chunk_size = 256 << 10
        self.stopped = False
        # By number: not answered yet. Members go with their group.
        self.items: dict[int, Item] = {}
        self._spent = {BULK: 0, PROMPT: 0}
        self._number = 0
        self._highest = 0
        self._unbegun: set[int] = set()
        self._cancels: list[Cancel] = []
        self._opened: list[Opened] = []
        self._prompt: deque[Item] = deque()
        self._waiting: deque[Item] = deque()
        self._members: deque[Item] = deque()
        self._open: deque[Item] = deque()
        self._turn = 0
        # A chunk that wants a record of its own was left for the next one.
        self._chunk_next = False

    # --- what is to be sent

    def _new(self, head: Head, content: bytes = b"", whole: bool = True) -> Item:
        self._number += 1
        item = Item(replace(head, item=self._number), bytearray(content), whole)
        self.items[self._number] = item
        self._unbegun.add(self._number)
        return item

    def item(self, kind: int, name: str, content: bytes, executable: bool = False) -> int:
        """Anything but a group."""
        item = self._new(*shape(Head(0, kind, name, executable=executable), content))
        (self._prompt if lane_of(item.head) == PROMPT else self._waiting).append(item)
        return item.head.item

    def stream(self, name: str) -> int:
        """A file of unknown length; `append` says what is in it."""
        item = self._new(Head(0, FILE, name), whole=False)
        self._waiting.append(item)
        return item.head.item

    def append(self, number: int, content: bytes, last: bool) -> None:
        item = self.items[number]
        item.content += content
        item.whole = last

    def group(self, name: str, members: list[tuple[Head, bytes]]) -> int:
        """A directory. Names and kinds of its members are those of their heads."""
        group = self._new(Head(0, GROUP, name))
        for head, content in members:
            head = replace(head, group=group.head.item)
            group.members.append(self._new(*shape(head, content)))
        self._waiting.append(group)
        return group.head.item

    def cancel(self, number: int, reason: int = CANCELLED) -> None:
        """Takes an item back, or ends one that was refused: with all its members, after itself."""
        item = self.items.get(number)
        if item is None or item.ended:
            return
        for each in (item, *item.members):
            if not each.ended:
                each.ended = True
                self._cancels.append(Cancel(each.head.item, reason))
            for queue in (self._prompt, self._waiting, self._members, self._open):
                if each in queue:
                    queue.remove(each)
        if not item.begun:
            self._forget(item)

    def _forget(self, item: Item) -> None:
        for each in (item, *item.members):
            del self.items[each.head.item]

    def opened(self, opened: Opened) -> None:
        """Tells the other end that an item of its own was read."""
        self._opened.append(opened)

    def offered(self, number: int) -> bool:
        """Whether there was an item with this number."""
        return 0 < number <= self._number

    def receipt(self, receipt: Receipt) -> None:
        item = self.items.get(receipt.item)
        early = item is not None and receipt.refused is None and not item.ended
        if item is None or not item.begun or item.head.group is not None or early:
            raise Fault("receipt")
        self.cancel(receipt.item)
        self._forget(item)

    def stop(self) -> None:
        self.stopped = True

    def waits(self) -> bool:
        """Whether something would leave if it might."""
        content = any(item.ready(1) for item in self._open)
        return bool(self._cancels or self._opened or not self.stopped and (self._prompt or self._members or content))

    def wants_bulk(self) -> bool:
        return not self.stopped and any(item.ready(1) for item in self._open)

    # --- what leaves

    def fill(self, receipts: list[Receipt], bulk: bool) -> Filled:
        """Takes what the next record holds, perhaps nothing; `bulk` says whether content of that lane may leave."""
        filled = Filled()
        # The record's own header and tag are beside this.
        room = self.chunk_size - 64
        if not self._chunk_next or self.stopped:
            while receipts and len(filled.plain) + EACH_MESSAGE < room:
                filled.plain += encode(receipts.pop(0))
                filled.receipts += 1
            self._fill_cancels(filled, room)
            while self._opened and len(filled.plain) + EACH_MESSAGE < room:
                filled.plain += encode(self._opened.pop(0))
        self._chunk_next = False
        if self.stopped:
            return filled
        both = bool(self._prompt) and bulk and self.wants_bulk()
        self._turn += both
        lanes = [self._prompt_message, self._bulk_message] if bulk else [self._prompt_message]
        for take in reversed(lanes) if both and self._turn % 5 == 0 else lanes:
            while message := take(filled, room - len(filled.plain)):
                filled.plain += message
                if len(message) > OWN_RECORD + EACH_CHUNK:
                    return filled
        return filled

    def _fill_cancels(self, filled: Filled, room: int) -> None:
        held = []
        for cancel in self._cancels:
            fits = len(filled.plain) + EACH_MESSAGE < room
            if fits and (cancel.item not in self._unbegun or self._may_take(cancel.item)):
                self._take(cancel.item)
                filled.plain += encode(cancel)
            else:
                held.append(cancel)
        self._cancels = held

    def _may_take(self, number: int) -> bool:
        highest = max(self._highest, number)
        return sum(each < highest for each in self._unbegun if each != number) <= MAX_SKIPPED

    def _take(self, number: int) -> None:
        self._unbegun.discard(number)
        self._highest = max(self._highest, number)

    def _prompt_message(self, filled: Filled, room: int) -> bytes | None:
        if not self._prompt:
            return None
        item = self._prompt[0]
        message = self._chunk(item, filled, room) if item.begun else self._head(item, room)
        if item.ended:
            self._prompt.popleft()
        return message

    def _bulk_message(self, filled: Filled, room: int) -> bytes | None:
        # Heads before chunks, members before others.
        if self._members and len(self._open) < MAX_OPEN_BULK:
            item = self._members[0]
            if message := self._head(item, room):
                self._members.popleft()
                self._open.extend([] if item.ended else [item])
                return message
        places = len(self._open) < MAX_OPEN_BULK - FOR_MEMBERS
        if self._waiting and places:
            item = self._waiting[0]
            groups = sum(each.head.kind == GROUP for each in self._open)
            allowed = item.head.kind != GROUP or groups < MAX_GROUPS
            if allowed and (message := self._head(item, room)):
                self._waiting.popleft()
                self._open.append(item)
                self._members.extend(item.members)
                return message
        for _ in range(len(self._open)):
            item = self._open[0]
            self._open.rotate(-1)
            if message := self._chunk(item, filled, room):
                if item.ended:
                    self._open.remove(item)
                return message
        return None

    def _head(self, item: Item, room: int) -> bytes | None:
        head = item.head
        cost, lane = cost_of_head(head), lane_of(head)
        message = encode(head)
        unanswered = sum(each.begun and each.head.group is None for each in self.items.values())
        if (
            len(message) > room
            or self._spent[lane] + cost > self.grants[lane]
            or not self._may_take(head.item)
            or unanswered >= MAX_UNANSWERED
        ):
            return None
        self._take(head.item)
        self._spent[lane] += cost
        item.begun = True
        item.ended = head.inline is not None or head.kind == DIR
        return message

    def _chunk(self, item: Item, filled: Filled, room: int) -> bytes | None:
        lane = lane_of(item.head)
        granted = self.grants[lane] - self._spent[lane] - EACH_MESSAGE
        ready = item.ready(min(granted, self.chunk_size)) if granted >= 0 else None
        if ready is None:
            return None
        count, last = ready
        alone = not filled.plain
        if not alone and (count > OWN_RECORD or count + EACH_CHUNK > room):
            self._chunk_next = True
            return None
        content = bytes(item.content[item.sent : item.sent + count])
        item.sent += count
        item.ended = last
        self._spent[lane] += EACH_MESSAGE + count
        filled.bulk += (EACH_MESSAGE + count) * (lane == BULK)
        return encode(Chunk(item.head.item, last, content))


def shape(head: Head, content: bytes) -> tuple[Head, bytes]:
    """Puts content that fits into the head."""
    if head.kind == DIR:
        return head, b""
    head = replace(head, size=len(content))
    return (replace(head, inline=content), b"") if len(content) <= MAX_INLINE else (head, content)
