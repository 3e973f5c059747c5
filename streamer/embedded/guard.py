"""Looks after the servers of a long run."""

import threading
from collections.abc import Callable, Sequence
from typing import Self

from streamer.embedded.server import EmbeddedServer
from streamer.errors import UnavailableError

CHECK_INTERVAL_S = 2.0


class Guard:
    """Asks servers every few seconds whether they are well, from a thread of its own; a context manager.

    Args:
        servers: Running ones.
        on_failure: Called once, from that thread, when one is not.
        interval_s: Between two rounds.
    """

    def __init__(
        self, servers: Sequence[EmbeddedServer], on_failure: Callable[[], None], *, interval_s: float = CHECK_INTERVAL_S
    ) -> None:
        self._servers = servers
        self._on_failure = on_failure
        self._interval_s = interval_s
        self._ending = threading.Event()
        self._failure: UnavailableError | None = None
        self._thread = threading.Thread(target=self._look, name="guard", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()

    def raise_failure(self) -> None:
        """Tell what was found.

        Raises:
            UnavailableError: A server has ended, or holds more than it may.
        """
        if self._failure is not None:
            raise self._failure

    def _look(self) -> None:
        while not self._ending.wait(self._interval_s):
            try:
                check(self._servers)
            except UnavailableError as error:
                self._failure = error
                self._on_failure()
                return


def check(servers: Sequence[EmbeddedServer]) -> None:
    """Ask each once.

    Raises:
        UnavailableError: A server has ended, or holds more than it may.
    """
    for server in servers:
        server.check()
