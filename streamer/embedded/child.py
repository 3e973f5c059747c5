"""A program that never outlives this process."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from streamer.errors import UnavailableError

_LAUNCH = Path(__file__).with_name("launch.py")
_END_BYTES = 65_536
_TAIL_LINES = 12
_SPAWN_TIMEOUT_S = 30.0


class Child:
    """One run of a program, its output in a file.

    The kernel's parent-death signal follows the *thread* that started a program, so a thread of its own starts each one
    and waits for its end. The program gets its own session: Ctrl-C in a terminal reaches us, who stop it in order.

    Args:
        command: Absolute path and arguments.
        log: Where stdout and stderr go; appended to.
        environment: Added to ours.

    Raises:
        UnavailableError: It cannot be started at all.
    """

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> None:
        self._command = [sys.executable, "-I", "-S", str(_LAUNCH), str(os.getpid()), *command]
        self._log = log
        self._environment = {**os.environ, **(environment or {})}
        self._is_spawned = threading.Event()
        self._has_ended = threading.Event()
        self._popen: subprocess.Popen[bytes] | None = None
        self._failure: OSError | None = None
        threading.Thread(target=self._run, name=f"child-{Path(command[0]).name}", daemon=True).start()
        self._is_spawned.wait(_SPAWN_TIMEOUT_S)
        if self._popen is None:
            raise UnavailableError(f"{command[0]} cannot be started: {self._failure}") from self._failure

    @property
    def pid(self) -> int:
        """Process id; the program's own on Linux, its watchman's elsewhere."""
        assert self._popen is not None
        return self._popen.pid

    @property
    def is_running(self) -> bool:
        """It has not ended."""
        return not self._has_ended.is_set()

    def wait(self, timeout_s: float) -> bool:
        """Wait for its end; False where it still runs."""
        return self._has_ended.wait(timeout_s)

    def terminate(self, grace_s: float) -> None:
        """Ask it to end, and insist after ``grace_s``."""
        self._signal(signal.SIGTERM)
        if not self._has_ended.wait(grace_s):
            self.kill()

    def kill(self) -> None:
        """End it at once; returns when it is gone."""
        self._signal(signal.SIGKILL)
        self._has_ended.wait()

    def log_end(self) -> str:
        """The last 64 KiB that it wrote."""
        try:
            with self._log.open("rb") as file:
                file.seek(max(0, self._log.stat().st_size - _END_BYTES))
                return file.read().decode("utf-8", "replace")
        except FileNotFoundError:
            return ""

    def log_tail(self) -> str:
        """The last lines that it wrote, for a message; without the places in Java's stack traces."""
        lines = [line for line in self.log_end().strip().splitlines() if not line.startswith("\tat ")]
        return "\n".join(lines[-_TAIL_LINES:]) or "(it wrote nothing)"

    def _signal(self, number: signal.Signals) -> None:
        assert self._popen is not None
        if self._has_ended.is_set():
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._popen.pid, number)  # its own session: the watchman and the program

    def _run(self) -> None:
        try:
            with self._log.open("ab") as log:
                self._popen = subprocess.Popen(
                    self._command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=self._environment,
                    start_new_session=True,
                )
        except OSError as error:
            self._failure = error
            return
        finally:
            self._is_spawned.set()
        self._popen.wait()
        self._has_ended.set()
