"""One end of a channel, without input or output: frames in, frames out, events (`src/PROTOCOL.md` from "Records" on).

Whoever drives it says when a link is up or down, hands over what comes, sends what `transmit` gives as long as it gives
something, and comes again at `deadline`. Time is a number of seconds from anywhere.
"""

import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from . import keys
from .handshake import FEATURES, Handshake
from .incoming import BULK, PROMPT, TOO_LARGE, UNSUPPORTED, WINDOWS, Fault, Incoming
from .keys import Tampered
from .messages import (
    KINDS,
    MAX_INLINE,
    REASONS,
    REFUSALS,
    SECRET,
    Cancel,
    Chunk,
    Close,
    Head,
    Malformed,
    Message,
    Opened,
    Receipt,
    State,
    encode,
    messages,
    state,
)
from .named import FEATURE_OF
from .outgoing import Outgoing

NEVER = float("inf")
DATA, CONTROL = 1, 2
MAX_FRAME = (1 << 20) + (64 << 10)
SHORTEST = 25
MAX_OWN_RECEIPTS = 16384
MANY_MESSAGES = 1024
ASK = (1.0, 1.0, 2.0, 4.0, 8.0, 15.0)
GAP = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)
EACH_STATE, AWAY, IDLE = 15.0, 45.0, 3600.0
CLOSING, EACH_CLOSING = 2.0, 0.25
USED_UP = 1 << 44


@dataclass(slots=True)
class Sealed:
    """A data record until it is acknowledged."""

    frame: bytes
    receipts: int
    bulk: int


class Session:
    """`tell` is called with what happens: a name, and what there is to say."""

    def __init__(
        self,
        role: str,
        password: bytes,
        tell: Callable[[str, dict], None],
        entropy: Callable[[int], bytes] = os.urandom,
        features: tuple[str, ...] = FEATURES,
    ):
        self.handshake = Handshake(role, password, entropy, features=features)
        self._tell = tell
        self.outgoing = Outgoing()
        self.incoming = Incoming(self._arrived, self._not_taken, features)
        self.resume_key: bytes | None = None
        self.max_frame = MAX_FRAME
        self._keys: dict[str, bytes] = {}
        # Links: whether there is one, their number, whether the other end has seen this one, and its own number.
        self.up = False
        self.link = 0
        self._echoed = True
        self._their_link = 0
        self._handshake_frames: deque[bytes] = deque()
        # What is sent.
        self._records: deque[Sealed] = deque()
        self._on_link = 0
        self._end = 0
        self._controls = 0
        self._sealed_bytes = 0
        self._acknowledged: deque[tuple[float, int]] = deque()
        self._pace: Pace | None = None
        # What comes.
        self._next = 0
        self._their_control = -1
        self._their_end = 0
        self._messages = 0
        self._used = {BULK: 0, PROMPT: 0}
        self._opened_at = NEVER
        self._away = False
        # When a state is due, and with what.
        self._state, self._ask, self._again = False, False, False
        self._state_at = NEVER
        self._ask_at, self._asks, self._asked = NEVER, 0, False
        self._gap_at, self._gaps = NEVER, 0
        # The end.
        self.draining = False
        self._closing: int | None = None
        self._close_at = NEVER
        self._close_sealed = False
        self.their_close: int | None = None
        # A fault of the other end has been told.
        self._broken = False
        self.over = False

    # --- what its owner asks for

    @property
    def connected(self) -> bool:
        return bool(self._keys)

    @property
    def drained(self) -> bool:
        return not (self.outgoing.items or self._records or self.incoming.receipts)

    def item(self, kind: int, name: str, content: bytes) -> int | None:
        """Sends a text, a file, a secret, a question or an answer; its number, if it does not stay at home."""
        if self.connected and not self._takes(kind):
            return self._stays(name, UNSUPPORTED)
        if kind == SECRET and len(content) > MAX_INLINE:
            return self._stays(name, TOO_LARGE)
        number = self.outgoing.item(kind, name, content)
        self.incoming.named.sent(kind, number, name)
        return number

    def _takes(self, kind: int) -> bool:
        """Whether the other end takes such items, as far as its features say."""
        return FEATURE_OF.get(kind, "") in ("", *self.handshake.common)

    def _stays(self, name: str, reason: int) -> None:
        self._tell("refused", {"name": name, "reason": REFUSALS[reason]})

    def read(self, number: int, at: int) -> None:
        """The owner has read an item of the other end, `at` so many milliseconds of the Unix clock."""
        if "opened" in self.handshake.common:
            self.outgoing.opened(Opened(number, at))

    def use(self, name: str, at: int) -> bytes | None:
        """The value of a secret that waits, once. That it was used is told as that it was read."""
        waiting = self.incoming.named.use(name)
        if waiting is None:
            return None
        self.read(waiting[0], at)
        return waiting[1]

    def close(self, reason: int, now: float) -> None:
        """Closes at once: what has not been stored by now is not."""
        if self._closing is not None:
            return
        self._closing, self._close_at = reason, now + CLOSING
        self.outgoing.stop()
        self.incoming.stop()
        if not self.connected:
            self.over = True

    def unconfirmed(self) -> list[int]:
        """Own items without a receipt."""
        return [number for number, item in self.outgoing.items.items() if item.head.group is None]

    # --- links

    def link_up(self, now: float, max_frame: int = 0, messages_per_minute: int = 0) -> None:
        """A link stands. `max_frame` is what it asks for, 0 where it asks for nothing."""
        self.max_frame = min(max_frame or MAX_FRAME, MAX_FRAME)
        largest = (1 << 20) if messages_per_minute else (256 << 10)
        self.outgoing.chunk_size = min(self.max_frame - 64, largest)
        if messages_per_minute and self._pace is None:
            self._pace = Pace(messages_per_minute, now)
        self.up = True
        self._on_link = 0
        heard = self._their_control >= 0 or self._next > 0
        self._handshake_frames = deque(() if heard else self.handshake.link_up(now))
        if not self.connected:
            return
        self.link += 1
        self._echoed = False
        self._state = self._ask = True
        self._progress()
        self._gap_at, self._gaps = NEVER, 0
        if any(len(record.frame) > self.max_frame for record in self._records):
            self._fault("frame limit", 6, now)
        self._tell("link", {"link": self.link})

    def link_down(self) -> None:
        self.up = False

    # --- what comes

    def longest(self) -> int:
        """The longest frame that may come now."""
        return MAX_FRAME if self.connected else self.handshake.longest()

    def receive(self, frame: bytes, now: float) -> None:
        if self.over or not self.up:
            return
        if not self.connected:
            if self.handshake.verdict is None:
                self._handshake_frames.extend(self.handshake.receive(frame, now))
                self._judged(now)
            return
        try:
            self._record(frame, now)
        except Tampered:
            self._fault("tampered", 2, now)
        except (Malformed, Fault) as fault:
            self._fault(str(fault), 3, now)

    def _judged(self, now: float) -> None:
        verdict = self.handshake.verdict
        if verdict == "unproven":
            self._handshake_frames.clear()
        if verdict == "failed":
            self._tell("handshake_failed", {})
        if verdict != "proven":
            return
        if self.handshake.protocol < 2:
            self._tell("old_peer", {})
            self.over = True
            return
        self._keys, self.resume_key = self.handshake.schedule()
        self.link, self._state = 1, True
        self._opened_at = now
        self._tell("connected", {"protocol": 2, "features": sorted(self.handshake.common)})
        for number, item in list(self.outgoing.items.items()):
            if not self._takes(item.head.kind):
                self.outgoing.cancel(number, UNSUPPORTED)
                self._tell("refused", {"item": number, "name": item.head.name, "reason": REFUSALS[UNSUPPORTED]})

    def _fault(self, name: str, reason: int, now: float) -> None:
        if not self._broken:
            self._tell("fault", {"fault": name})
        self._broken = True
        self.close(reason, now)

    def _record(self, record: bytes, now: float) -> None:
        if record in self.handshake.accepted:
            return
        if len(record) < SHORTEST or record[0] not in (DATA, CONTROL):
            raise Malformed("record")
        kind, number = record[0], int.from_bytes(record[1:9])
        if kind == CONTROL and number <= self._their_control:
            return
        if kind == DATA and number < self._next:
            self._state = True
            return
        if kind == DATA and (number > self._next or self._own_receipts() >= MAX_OWN_RECEIPTS):
            if self._gaps == 0:
                self._gap_at = min(self._gap_at, now)
            return
        plain = keys.open_record(self._keys[keys.other(self.handshake.role)], record)
        self._opened_at, self._away = now, False
        if self._sealed_bytes >= USED_UP:
            self.close(4, now)
        if kind == CONTROL:
            self._their_control = number
            self._take_state(state(plain), now)
        else:
            self._take_data(plain, now)

    def _own_receipts(self) -> int:
        return len(self.incoming.receipts) + sum(record.receipts for record in self._records)

    def _take_data(self, plain: bytes, now: float) -> None:
        if self.their_close is not None:
            raise Fault("after close")
        self._next += 1
        self._gap_at, self._gaps = (now + 1.0 if self._their_end > self._next else NEVER), 0
        self._progress()
        for message in messages(plain):
            if self.their_close is not None:
                raise Fault("after close")
            self._take(message)
            self._messages += 1
        grown = any(self.incoming.used[lane] - self._used[lane] >= WINDOWS[lane] // 4 for lane in WINDOWS)
        if grown or self._messages >= MANY_MESSAGES:
            self._state = True

    def _take(self, message: Message) -> None:
        match message:
            case Head():
                self.incoming.head(message)
            case Chunk():
                self.incoming.chunk(message)
            case Cancel():
                self.incoming.cancel(message)
            case Receipt(item, refused):
                self.outgoing.receipt(message)
                if refused is None:
                    self._tell("delivered", {"item": item})
                else:
                    self.incoming.named.not_taken(item)
                    self._tell("refused", {"item": item, "reason": REFUSALS[refused]})
            case Opened(item, at):
                if not self.outgoing.offered(item):
                    raise Fault("receipt")
                self._tell("opened", {"item": item, "at": at})
            case Close(reason):
                self.their_close = reason
                self._state = True
                self.outgoing.stop()
                self.incoming.stop()
                self._tell("peer_closed", {"reason": REASONS[reason]})

    def _arrived(self, head: Head, content: bytes, members: list[tuple[Head, bytes]]) -> None:
        found = {"head": head, "content": content, "members": members}
        self._tell(KINDS[head.kind], found)

    def _not_taken(self, head: Head, reason: int) -> None:
        self._tell("not_taken", {"item": head.item, "name": head.name, "reason": REFUSALS[reason]})

    def _take_state(self, theirs: State, now: float) -> None:
        if theirs.next > self._end:
            raise Fault("acknowledged future")
        while self._end - len(self._records) < theirs.next:
            record = self._records.popleft()
            self._on_link = max(0, self._on_link - 1)
            self._acknowledged.append((now, record.bulk))
            self._progress()
        for lane, told in ((BULK, theirs.grant_bulk), (PROMPT, theirs.grant_prompt)):
            if told > self.outgoing.grants[lane]:
                self.outgoing.grants[lane] = told
                self._progress()
        self._their_end = max(self._their_end, theirs.end)
        if self._their_end > self._next and self._gaps == 0:
            self._gap_at = min(self._gap_at, now + 1.0)
        if theirs.link > self._their_link:
            self._their_link = theirs.link
            self._state = True
        self._state |= theirs.ask
        if not self._echoed and theirs.echo == self.link:
            self._echoed = True
            self._on_link = 0
            self._progress()
            self._again |= theirs.end > self._next
        elif theirs.again and self._echoed:
            self._on_link = 0

    def _progress(self) -> None:
        self._ask_at, self._asks, self._asked = NEVER, 0, False

    # --- what leaves

    def transmit(self, now: float) -> bytes | None:
        """The next frame of the link, if there is one to send now."""
        if not self.up or self.over:
            self._tick_close(now)
            return None
        if not self.connected and self.handshake.verdict is None:
            self.handshake.tick(now)
            self._judged(now)
        if self._handshake_frames:
            return self._handshake_frames.popleft()
        if not self.connected:
            return None
        self._tick(now)
        if self.over:
            return None
        if self._state or self._again:
            return self._seal_state(now)
        if self._echoed:
            if self._on_link < len(self._records):
                self._on_link += 1
                return self._records[self._on_link - 1].frame
            if record := self._seal_data(now):
                return record
            # One that has taken a close does not wait for the acknowledgement of its own.
            self.over = self._close_sealed and (self.their_close is not None or not self._records)
            if self.over:
                return None
        self._wait(now)
        return self._seal_state(now) if self._state else None

    def _tick_close(self, now: float) -> None:
        self.over |= now >= self._close_at

    def _tick(self, now: float) -> None:
        self._tick_close(now)
        if now >= self._gap_at:
            self._again = True
            self._gap_at = now + GAP[min(self._gaps, len(GAP) - 1)]
            self._gaps += 1
        if now >= self._state_at:
            self._state = True
        if now - self._opened_at >= AWAY and not self._away:
            self._away = True
            self._tell("peer_away", {})
        if now - self._opened_at >= IDLE:
            self.close(5, now)
        if self.draining and (self.drained or self.their_close is not None):
            self.close(0, now)

    def _wait(self, now: float) -> None:
        """There is nothing to put on the link: whether to ask for an answer."""
        if self._close_sealed:
            if now >= self._ask_at or not self._asked:
                self._state = self._ask = self._asked = True
                self._ask_at = now + EACH_CLOSING
            return
        flight = self.outgoing.wants_bulk() and not self._bulk_may_leave(now)
        if self._records and self._echoed and not self._asked and (flight or self.draining):
            self._state = self._ask = self._asked = True
        if not (self._records or not self._echoed or self.incoming.receipts or self.outgoing.waits()):
            self._ask_at, self._asks = NEVER, 0
        elif now >= self._ask_at or self._ask_at == NEVER:
            if self._ask_at != NEVER:
                self._state = self._ask = True
            self._ask_at = now + ASK[min(self._asks, len(ASK) - 1)]
            self._asks += 1

    def _bulk_may_leave(self, now: float) -> bool:
        while self._acknowledged and self._acknowledged[0][0] < now - 1.0:
            self._acknowledged.popleft()
        lately = sum(bulk for _, bulk in self._acknowledged)
        in_flight = sum(record.bulk for record in self._records)
        paced = self._pace is not None and self._pace.at(now) > now
        return not paced and in_flight < max(lately, 2 * self.outgoing.chunk_size)

    def _seal_data(self, now: float) -> bytes | None:
        if self._close_sealed or (self._sealed_bytes >= USED_UP and self._closing is None):
            return None
        filled = self.outgoing.fill(self.incoming.receipts, self._bulk_may_leave(now))
        self.incoming.unanswered -= filled.receipts
        if self._closing is not None and not (self.incoming.receipts or self.outgoing.waits()):
            filled.plain += encode(Close(self._closing))
            self._close_sealed = True
            self._progress()
        if not filled.plain:
            return None
        if filled.bulk and self._pace:
            self._pace.take(now)
        frame = keys.seal_record(self._own_key(), DATA, self._end, bytes(filled.plain))
        self._sealed_bytes += len(frame)
        self._records.append(Sealed(frame, filled.receipts, filled.bulk))
        self._end += 1
        self._on_link += 1
        return frame

    def _own_key(self) -> bytes:
        return self._keys[self.handshake.role]

    def _seal_state(self, now: float) -> bytes:
        snapshot = State(
            self._next, self.incoming.grant(BULK), self.incoming.grant(PROMPT), self._end, self.link,
            self._their_link, self._ask, self._again,
        )  # fmt: skip
        self._state = self._ask = self._again = False
        self._state_at = now + EACH_STATE
        self._messages, self._used = 0, dict(self.incoming.used)
        self._controls += 1
        return keys.seal_record(self._own_key(), CONTROL, self._controls - 1, encode(snapshot))

    def deadline(self, now: float) -> float:
        """When `transmit` may have something to say without being told of anything else."""
        if not self.up:
            return self._close_at
        if not self.connected:
            return min(self.handshake.deadline(), self._close_at)
        pace = self._pace.at(now) if self._pace and self.outgoing.wants_bulk() else now
        silence = self._opened_at + (IDLE if self._away else AWAY)
        clocks = (self._ask_at, self._gap_at, self._state_at, self._close_at, silence)
        return min(*clocks, pace if pace > now else NEVER)


class Pace:
    """A relay that counts messages: five sixths of them are for bulk, after a burst of half a minute's share."""

    def __init__(self, messages_per_minute: int, now: float):
        share = max(1, 5 * messages_per_minute // 6)
        self._each = 60.0 / share
        self._burst = max(1.0, share / 2)
        self._left, self._since = self._burst, now

    def _settle(self, now: float) -> None:
        self._left = min(self._burst, self._left + (now - self._since) / self._each)
        self._since = now

    def at(self, now: float) -> float:
        """When the next record may leave."""
        self._settle(now)
        return now if self._left >= 1.0 else now + (1.0 - self._left) * self._each

    def take(self, now: float) -> None:
        self._settle(now)
        self._left -= 1.0
