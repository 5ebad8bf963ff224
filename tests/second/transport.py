"""Links for a session: a direct TCP connection, or a seat at a relay.

Of `src/PROTOCOL.md`: "Frames", "Direct mode after a drop", the times of "Heartbeats". Of `relay/PROTOCOL.md`: "Hello",
"Pairing", "Resume", "Leaving", "Close codes".
"""

import asyncio
import json
import os
import random
import socket
import time
from collections.abc import AsyncIterator, Callable

import websockets
from websockets.asyncio.client import ClientConnection, connect

from .keys import CHALLENGE_LENGTH, HOST, PEER, is_proof, proof
from .session import MAX_FRAME, Session

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
SILENCE = 30.0
PROVING = 10.0
LAST_BYTES = 2.0
MAX_PROOF = 128
ONE_ADDRESS, ONE_RELAY = 4.0, 15.0
LEAST_FRAME = 64 << 10
LIMITS = ("max_frame", "messages_per_minute", "bytes_per_minute", "idle_secs")
NOT_AGAIN = (4001, 4002, 4003)
FINAL = ("unable_to_resume", "unable_to_join", "nameplate_lost", "bad_message")


class Gone(Exception):
    """There will be no other link; the text says why."""


class Link:
    """Carries a session's frames until the link or the session ends."""

    def __init__(self, session: Session, changed: asyncio.Event):
        self.session = session
        # Set when `transmit` may have something new to say.
        self.changed = changed
        # The other end is known, or will not be by this link.
        self.judged = asyncio.Event()

    def frames(self) -> AsyncIterator[bytes]:
        """What comes, until the link ends."""
        raise NotImplementedError

    async def send(self, frame: bytes) -> None:
        raise NotImplementedError

    async def carry(self) -> None:
        """Both directions at once: an end that sends must not stop taking."""
        tasks = {asyncio.ensure_future(self._take()), asyncio.ensure_future(self._give())}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            done = await asyncio.gather(*tasks, return_exceptions=True)
            self.session.link_down()
            self.judged.set()
        for error in done:
            expected = (asyncio.CancelledError, OSError, EOFError, TimeoutError, websockets.ConnectionClosed)
            if isinstance(error, BaseException) and not isinstance(error, expected):
                raise error

    async def _take(self) -> None:
        async for frame in self.frames():
            self.session.receive(frame, time.monotonic())
            self.changed.set()
            if self.session.connected:
                self.judged.set()

    async def _give(self) -> None:
        session = self.session
        while True:
            self.changed.clear()
            while (frame := session.transmit(time.monotonic())) is not None:
                await self.send(frame)
            if session.over or session.handshake.verdict == "failed":
                return
            if session.up and session.handshake.verdict == "unproven":
                await self.dismiss()
            await until(self.changed, session.deadline(time.monotonic()))

    async def dismiss(self) -> None:
        """Whoever is at the other end of this link was not the peer."""
        raise ConnectionError


async def until(event: asyncio.Event, deadline: float) -> None:
    try:
        async with asyncio.timeout(max(0.0, deadline - time.monotonic()) if deadline < 1e18 else None):
            await event.wait()
    except TimeoutError:
        pass


def pauses() -> AsyncIterator[None]:
    """The pauses before attempts to connect again."""

    async def each() -> AsyncIterator[None]:
        pause = FIRST_PAUSE
        while True:
            await asyncio.sleep(random.uniform(pause / 2, pause))
            yield
            pause = min(2 * pause, LONGEST_PAUSE)

    return each()


# --- direct


class DirectLink(Link):
    """Frames with their length in front."""

    def __init__(self, session: Session, changed: asyncio.Event, streams: tuple):
        super().__init__(session, changed)
        self.reader, self.writer = streams
        self.writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    async def frame(self, longest: int, silence: float | None) -> bytes:
        """The next frame; `silence` is how long no byte may come."""
        length = int.from_bytes(await self.exactly(4, silence))
        if length > longest:
            raise ConnectionError("a frame that is too long")
        return await self.exactly(length, silence)

    async def exactly(self, count: int, silence: float | None) -> bytes:
        found = bytearray()
        while len(found) < count:
            async with asyncio.timeout(silence):
                more = await self.reader.read(count - len(found))
            if not more:
                raise EOFError
            found += more
        return bytes(found)

    async def frames(self) -> AsyncIterator[bytes]:
        while True:
            # The handshake has clocks of its own.
            yield await self.frame(self.session.longest(), SILENCE if self.session.connected else None)

    async def send(self, frame: bytes) -> None:
        self.writer.write(len(frame).to_bytes(4) + frame)
        await self.writer.drain()

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except OSError:
            pass

    async def prove_peer(self) -> None:
        """As the peer, on a new connection."""
        key, own = self.session.resume_key, os.urandom(CHALLENGE_LENGTH)
        async with asyncio.timeout(PROVING):
            await self.send(b"R\x01" + own)
            answer = await self.frame(MAX_PROOF, PROVING)
            theirs = answer[2:34]
            if answer[:2] != b"R\x02" or not is_proof(answer[34:], key, HOST, own, theirs):
                raise ConnectionError("the host did not prove itself")
            await self.send(b"R\x03" + proof(key, PEER, own, theirs))

    async def prove_host(self) -> None:
        """As the host."""
        key, own = self.session.resume_key, os.urandom(CHALLENGE_LENGTH)
        async with asyncio.timeout(PROVING):
            first = await self.frame(MAX_PROOF, PROVING)
            theirs = first[2:]
            if first[:2] != b"R\x01" or len(theirs) != CHALLENGE_LENGTH:
                raise ConnectionError("no resume")
            await self.send(b"R\x02" + own + proof(key, HOST, theirs, own))
            last = await self.frame(MAX_PROOF, PROVING)
            if last[:2] != b"R\x03" or not is_proof(last[2:], key, PEER, theirs, own):
                raise ConnectionError("the peer did not prove itself")


async def direct_peer(session: Session, changed: asyncio.Event, host: str, port: int) -> None:
    again = pauses()
    while not session.over:
        try:
            async with asyncio.timeout(ONE_ADDRESS):
                streams = await asyncio.open_connection(host, port)
            link = DirectLink(session, changed, streams)
            try:
                if session.connected:
                    await link.prove_peer()
                session.link_up(time.monotonic())
                again = pauses()
                await link.carry()
            finally:
                await link.close()
        except (OSError, EOFError, TimeoutError):
            pass
        if session.handshake.verdict == "failed" or session.their_close is not None:
            return
        if not session.connected:
            raise Gone("the connection ended before the host had proven itself")
        await anext(again)
        session.transmit(time.monotonic())


async def direct_host(session: Session, changed: asyncio.Event, listener: socket.socket) -> None:
    """One visitor at a time is judged; after the handshake, one that proves itself replaces the link there is."""
    judging = asyncio.Lock()
    visits: set[asyncio.Task] = set()
    current: asyncio.Task | None = None
    # There is no link.
    idle = asyncio.Event()
    idle.set()

    def begin(link: DirectLink) -> asyncio.Task:
        nonlocal current
        idle.clear()
        session.link_up(time.monotonic())
        current = asyncio.ensure_future(link.carry())
        current.add_done_callback(lambda task: idle.set() if task is current else None)
        return current

    async def visit(*streams: object) -> None:
        visits.add(asyncio.current_task())
        link = DirectLink(session, changed, streams)
        try:
            async with judging:
                carried = None if session.connected else begin(link)
                if carried:
                    await link.judged.wait()
            if not carried:
                await link.prove_host()
                async with judging:
                    current.cancel()
                    await asyncio.gather(current, return_exceptions=True)
                    carried = begin(link)
            await asyncio.gather(carried, return_exceptions=True)
        except (OSError, EOFError, TimeoutError, asyncio.CancelledError):
            pass
        finally:
            await link.close()
            visits.discard(asyncio.current_task())

    async with await asyncio.start_server(visit, sock=listener):
        await idle.wait()
        while not (session.over or session.their_close is not None or session.handshake.verdict == "failed"):
            changed.clear()
            session.transmit(time.monotonic())
            await until(changed, session.deadline(time.monotonic()))
            await idle.wait()
    # What was written last leaves; who still waits to be judged does not hold this up.
    if visits:
        _, waiting = await asyncio.wait(visits, timeout=LAST_BYTES)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting)


# --- relay


class Lost(asyncio.Transport):
    """What is left of a transport once its connection is lost."""

    def is_closing(self) -> bool:
        return True

    def abort(self) -> None:
        pass


class Socket(ClientConnection):
    """A transport that was closed with bytes left over forgets its loop when it is lost, and a send that aborts it
    then fails with an AttributeError (agronholm/anyio#1250): such a one is let go of."""

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.transport = Lost()


class RelayLink(Link):
    """A seated websocket. The seat outlives it."""

    def __init__(self, session: Session, changed: asyncio.Event, socket: ClientConnection, seat: "Seat"):
        super().__init__(session, changed)
        self.socket, self.seat = socket, seat

    async def frames(self) -> AsyncIterator[bytes]:
        async for message in self.socket:
            if isinstance(message, bytes):
                yield message
            else:
                self.seat.status(said(message), self.session)
                self.changed.set()

    async def send(self, frame: bytes) -> None:
        await self.socket.send(frame)

    async def dismiss(self) -> None:
        self.session.link_down()
        self.seat.channel = None
        await self.socket.send(json.dumps({"action": "release"}))


def said(text: str | bytes) -> dict:
    """What a relay says: untrusted, as all that it does."""
    try:
        message = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConnectionError("not JSON") from error
    if not isinstance(message, dict):
        raise ConnectionError("not an object")
    return message


class Seat:
    """What an end knows of its place at a relay."""

    def __init__(self, role: str, nameplate: str | None):
        self.role, self.nameplate = role, nameplate
        self.seat: str | None = None
        self.boot: str | None = None
        self.channel: str | None = None
        self.limits: list[int] = []

    def hello(self) -> dict:
        if self.seat is None:
            return {"action": "allocate"} if self.role == HOST else {"action": "join", "nameplate": self.nameplate}
        place = {"channel": self.channel} if self.channel else {"nameplate": self.nameplate}
        return {"action": "resume", "role": self.role, "seat": self.seat, "boot": self.boot} | place

    def welcomed(self, answer: dict) -> None:
        if answer.get("type") == "error":
            if answer.get("code") not in FINAL and self.seat:
                raise ConnectionError(str(answer.get("code")))
            raise Gone(str(answer.get("code")))
        limits = answer.get("limits")
        numbers = [limits.get(name) if isinstance(limits, dict) else None for name in LIMITS]
        words = [answer.get("seat"), answer.get("boot"), answer.get("nameplate", self.nameplate)]
        if not all(type(number) is int and number >= 0 for number in numbers):
            raise ConnectionError("the relay's limits make no sense")
        if not all(isinstance(word, str) for word in words):
            raise ConnectionError("the relay's answer makes no sense")
        if 0 < numbers[0] < LEAST_FRAME:
            raise Gone("the relay's frames are too short")
        self.seat, self.boot, self.nameplate = words
        self.limits = numbers[:2]

    def up(self, session: Session) -> None:
        session.link_up(time.monotonic(), *self.limits)

    def status(self, status: dict, session: Session) -> None:
        """Past the proof there is one pairing, and the relay has no say in that."""
        channel = status.get("channel")
        if status.get("event") == "paired" and channel != self.channel and not session.connected:
            self.channel, self.boot = channel, status.get("boot")
            self.up(session)


async def relay(begin: Callable[[str], Session], changed: asyncio.Event, url: str, seat: Seat) -> None:
    """Seated as either end, again and again, until the session is over. `begin` makes it once there is a nameplate."""
    session: Session | None = None
    again = pauses()
    while session is None or not session.over:
        try:
            async with connect(
                f"{url.rstrip('/')}/ws", create_connection=Socket, compression=None, max_size=MAX_FRAME,
                open_timeout=ONE_RELAY, ping_interval=10, ping_timeout=20, proxy=None,
            ) as socket:  # fmt: skip
                await socket.send(json.dumps(seat.hello()))
                seat.welcomed(said(await socket.recv()))
                session = session or begin(seat.nameplate)
                if seat.channel:
                    seat.up(session)
                again = pauses()
                await RelayLink(session, changed, socket, seat).carry()
                failed = session.handshake.verdict == "failed"
                if failed or session.over:
                    await socket.send(json.dumps({"action": "bye", "mood": "scary" if failed else "happy"}))
                    await socket.wait_closed()
                    return
                if socket.close_code in NOT_AGAIN and session.their_close is None:
                    raise Gone(f"the relay closed with {socket.close_code}")
        except (OSError, EOFError, TimeoutError, websockets.WebSocketException) as error:
            if session is None:
                raise Gone(f"no relay: {error}") from error
        if session.their_close is not None:
            return
        await anext(again)
        session.transmit(time.monotonic())
