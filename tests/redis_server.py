"""A Redis that a test may kill and start again on the same port."""

import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import redis

from streamer.embedded.valkey import redis_program
from streamer.redis_client import connect_redis

STARTS_WITHIN_S = 10.0


class RedisServer:
    """A server without persistence: after a kill its data is gone."""

    def __init__(self, folder: Path, *arguments: str, program: str | None = None) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._command = [program or str(redis_program()), "--bind", "127.0.0.1", "--port", str(self.port)]
        self._command += ["--dir", str(folder), "--save", "", *arguments]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        deadline_s = time.monotonic() + STARTS_WITHIN_S
        while True:
            try:
                with connect_redis(self.url) as client:
                    client.ping()
            except redis.AuthenticationError:
                return
            except redis.RedisError:
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(0.01)
            else:
                return

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
