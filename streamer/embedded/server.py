"""What every embedded server has in common: a port, a folder, a start that waits for an answer, an end."""

import random
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Self

from streamer.embedded.child import Child
from streamer.embedded.folder import Folder
from streamer.errors import UnavailableError

HOST = "127.0.0.1"
# Under the range that systems hand to outgoing connections (32768 on Linux, 49152 elsewhere): a client that reconnects
# to a dead server's port in that range can be given the very same port, talk to itself and keep the server from it.
_PORTS = range(15_000, 32_768)
_IN_USE_SIGNS = ("ddress already in use", "ddress in use")
_ATTEMPTS = 5
_POLL_INTERVAL_S = 0.02


def free_port() -> int:
    """A loopback port that nobody listens on at this moment."""
    picker = random.SystemRandom()
    for _ in range(200):
        port = picker.choice(_PORTS)
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise UnavailableError("no free loopback port found in 200 tries; see `ss -ltn` for what listens")


class EmbeddedServer(ABC):
    """A real server, for this process alone, gone when it is gone.

    Use it as a context manager, or `start` and `stop` it. After `kill` or a crash, `start` brings it back on the same
    port with the data that it kept.

    Args:
        folder: Where its data lies and stays; None: a temporary folder, removed by `stop`.
        start_timeout_s: How long it may take to answer.
    """

    kind: ClassVar[str]
    stop_grace_s: ClassVar[float] = 5.0  # then it is killed

    def __init__(self, folder: Path | None = None, *, start_timeout_s: float = 30.0) -> None:
        self._wanted_folder = folder
        self._start_timeout_s = start_timeout_s
        self._folder: Folder | None = None
        self._child: Child | None = None
        self._port: int | None = None

    @property
    def address(self) -> str:
        """``127.0.0.1:PORT``; known once it was started."""
        if self._port is None:
            raise UnavailableError(f"embedded {self.kind} was not started")
        return f"{HOST}:{self._port}"

    @property
    def port(self) -> int:
        """The port; known once it was started."""
        return int(self.address.rpartition(":")[2])

    @property
    def is_running(self) -> bool:
        """Its process lives."""
        return self._child is not None and self._child.is_running

    @property
    def pid(self) -> int:
        """Its process id, while it runs."""
        if self._child is None:
            raise UnavailableError(f"embedded {self.kind} is not running")
        return self._child.pid

    @property
    def resident_bytes(self) -> int:
        """Memory that its process holds now; 0 where it does not run, or where the system does not tell."""
        try:
            status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        except (OSError, UnavailableError):
            return 0
        rows = [line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")]
        return int(rows[0]) * 1024 if rows else 0

    def start(self) -> Self:
        """Start it and wait until it answers.

        Raises:
            UnavailableError: The program is missing, ends at once, or does not answer in time; with what it wrote last.
        """
        if self.is_running:
            return self
        if self._folder is None:
            self._folder = Folder(self.kind, self._wanted_folder)
        try:
            self._start_on_a_port(self._folder.path)
        except BaseException:
            self.kill()
            if self._port is None:
                self._release()
            raise
        return self

    def kill(self) -> None:
        """End it at once, as a crash would; its data and its port stay for the next `start`."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def stop(self) -> None:
        """End it and give its folder back; in order, where its data is kept."""
        if self._child is not None and self._folder is not None and not self._folder.is_temporary:
            self._child.terminate(self.stop_grace_s)
        self.kill()
        self._release()

    def check(self) -> None:
        """Tell whether it is well; a long run asks every few seconds.

        Raises:
            UnavailableError: It has ended, with what it wrote last.
        """
        if self._child is not None and not self._child.is_running:
            raise UnavailableError(
                f"embedded {self.kind} on {self.address} has ended; it wrote last:\n{self._child.log_tail()}"
            )

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @abstractmethod
    def _prepare(self, folder: Path, port: int) -> Sequence[str]:
        """Write what the server needs into its folder; give the command that starts it."""

    @abstractmethod
    def _answers(self, port: int, pid: int) -> bool:
        """Whether the server of that process, and no other, answers on the port."""

    def _environment(self) -> Mapping[str, str]:
        return {}

    def _release(self) -> None:
        if self._folder is not None:
            self._folder.close()
            self._folder = None
        self._port = None

    def _start_on_a_port(self, folder: Path) -> None:
        deadline_s = time.monotonic() + self._start_timeout_s
        log = folder / f"{self.kind}.log"
        for attempt in range(1, _ATTEMPTS + 1):
            port = self._port or free_port()
            log.unlink(missing_ok=True)
            self._child = Child(self._prepare(folder, port), log, self._environment())
            if self._wait_until_it_answers(self._child, port, deadline_s):
                self._port = port
                return
            is_port_taken = any(sign in self._child.log_end() for sign in _IN_USE_SIGNS)
            if self._child.is_running:
                reason = f"does not answer within {self._start_timeout_s:g} s"
            elif is_port_taken and attempt < _ATTEMPTS and time.monotonic() < deadline_s:
                continue
            else:
                reason = "ended while it started"
            wrote = self._child.log_tail()
            raise UnavailableError(f"embedded {self.kind} on {HOST}:{port} {reason}; it wrote last:\n{wrote}")

    def _wait_until_it_answers(self, child: Child, port: int, deadline_s: float) -> bool:
        while child.is_running and time.monotonic() < deadline_s:
            if self._answers(port, child.pid):
                return True
            child.wait(_POLL_INTERVAL_S)
        return False


def listens(port: int) -> bool:
    """Something accepts connections on the loopback port."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((HOST, port)) == 0
