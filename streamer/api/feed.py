"""The event feed: one reader for all clients, a bounded queue for each, and server-sent events out of it.

Everything here runs on the event loop, so that a client joins between two events and not in the middle of one.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from streamer.event_log import START, Entry

SEND_TIMEOUT_S: Final = 15.0
RETRY_MS: Final = 2000
DROPPED: Final = b": you are too slow; connect again with Last-Event-ID\n\n"
_CLOSING: Final = b": the server is leaving; connect again with Last-Event-ID\n\n"
_LOST: Final = b'event: lost\ndata: {"detail": "events after your Last-Event-ID were forgotten; query /v1/events"}\n\n'

Accepts = Callable[[Entry], bool]
ReadPage = Callable[[str], "asyncio.Future[tuple[str, Sequence[Entry]]]"]


def order_of(entry_id: str) -> tuple[int, int]:
    """Entry ids in the order in which they were told."""
    milliseconds, _, number = entry_id.partition("-")
    return int(milliseconds), int(number or 0)


def block_of(entry: Entry) -> bytes:
    """An entry as the feed says it."""
    return f"id: {entry.id}\ndata: {entry.event.to_json()}\n\n".encode()


@dataclass(slots=True, eq=False)
class _Client:
    accepts: Accepts
    waiting: deque[bytes]
    limit: int
    woken: asyncio.Event
    is_slow: bool = False

    def offer(self, blocks: Sequence[bytes]) -> None:
        """What comes together is taken together: a burst does not make a client slow."""
        if len(self.waiting) >= self.limit:
            self.is_slow = True
            self.waiting.clear()
        else:
            self.waiting.extend(blocks)
        self.woken.set()


class Hub:
    """Hands each entry to every client that wants it, and waits for none.

    Args:
        queue: Blocks that may wait for one client when more come.
    """

    def __init__(self, queue: int) -> None:
        self._queue = queue
        self._clients: set[_Client] = set()
        self._is_closed = False
        self.last_id = START
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._clients)

    def publish(self, last_id: str, entries: Sequence[Entry]) -> None:
        """Entries came; ``last_id`` is the newest that was read."""
        self.last_id = last_id
        blocks: dict[str, bytes] = {}
        for client in self._clients:
            wanted = [] if client.is_slow else [entry for entry in entries if client.accepts(entry)]
            for entry in wanted:
                if entry.id not in blocks:
                    blocks[entry.id] = block_of(entry)
            if wanted:
                client.offer([blocks[entry.id] for entry in wanted])
                self.dropped += client.is_slow

    def close(self) -> None:
        """Send everybody away."""
        self._is_closed = True
        for client in self._clients:
            client.woken.set()

    async def follow(
        self, last_id: str | None, accepts: Accepts, read: ReadPage, ping_s: float
    ) -> AsyncIterator[bytes]:
        """What a client is told: what it missed, then what comes, until it is too slow or the server leaves.

        Args:
            last_id: The last entry that it has; None: only what comes.
            accepts: Which entries it wants.
            read: Reads what follows an entry.
            ping_s: A comment after this long without anything.
        """
        yield f"retry: {RETRY_MS}\n\n".encode()
        at = self.last_id if last_id is None else last_id
        while order_of(at) < order_of(self.last_id):
            at, entries = await read(at)
            for entry in entries:
                if accepts(entry):
                    yield block_of(entry)
        # Nothing is awaited between the last look at `last_id` and joining: no entry falls in between.
        client = _Client(accepts, deque(), self._queue, asyncio.Event())
        self._clients.add(client)
        try:
            async for block in self._live(client, ping_s):
                yield block
        finally:
            self._clients.discard(client)

    async def _live(self, client: _Client, ping_s: float) -> AsyncIterator[bytes]:
        while not self._is_closed:
            if client.is_slow:
                yield DROPPED
                return
            if client.waiting:
                blocks = b"".join(client.waiting)
                client.waiting.clear()
                yield blocks
                continue
            client.woken.clear()
            try:
                await asyncio.wait_for(client.woken.wait(), ping_s)
            except TimeoutError:
                yield b": still here\n\n"
        yield _CLOSING


def lost() -> bytes:
    """Tells a client that it comes too late for some of what it missed."""
    return _LOST


class FeedResponse(Response):
    """Sends blocks as they come; ends when the client goes, or takes too long to take one."""

    media_type = "text/event-stream"

    def __init__(self, blocks: AsyncIterator[bytes]) -> None:
        super().__init__(None, headers={"x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._blocks = blocks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        del scope
        sending = asyncio.ensure_future(self._send_all(send))
        leaving = asyncio.ensure_future(_until_gone(receive))
        try:
            await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, leaving):
                task.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)

    async def _send_all(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        await send(start)
        async with contextlib.aclosing(self._blocks) as blocks:  # type: ignore[type-var]  # a generator
            async for block in blocks:
                message = {"type": "http.response.body", "body": block, "more_body": True}
                await asyncio.wait_for(send(message), SEND_TIMEOUT_S)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
