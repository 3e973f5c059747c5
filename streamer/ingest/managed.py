"""Cameras that come and go while we run: follows those that the API registered.

Several supervisors share the cameras: each is read by whoever holds its lease, and taken over when its holder is gone.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

import structlog

from streamer.camera_store import Camera, CameraStore
from streamer.errors import UnavailableError, UsageError
from streamer.ingest.ingestor import Ingestor
from streamer.ingest.redact import redact
from streamer.ingest.sender import Producer
from streamer.ingest.spec import SCHEMES, SourceSpec
from streamer.settings import Settings
from streamer.ssrf import check_url, parse_networks

_LOOK_S: Final = 0.25
_TELL_S: Final = 1.0
_RESOLVE_AGAIN_S: Final = 60.0
_log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class _Reading:
    camera: Camera
    ingestor: Ingestor
    resolved_s: float


class CameraSupervisor:
    """Reads registered cameras from `start` to `close`.

    Args:
        store: Where they are registered.
        settings: How they are read, and which networks they may be in.
        producer: Where chunks go; shared by all cameras, stays open.
        owner: Unique to this supervisor.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        store: CameraStore,
        settings: Settings,
        producer: Producer,
        owner: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._settings = settings
        self._producer = producer
        self._owner = owner
        self._clock = clock
        self._allowed = parse_networks(settings.api.allowed_networks)
        self._reading: dict[str, _Reading] = {}
        self._refused: dict[str, tuple[Camera, str]] = {}
        self._told_s = -_TELL_S
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cameras", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """Stop all cameras and give them to others."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    @property
    def streams(self) -> tuple[str, ...]:
        """Which cameras are read here."""
        return tuple(sorted(self._reading))

    def _run(self) -> None:
        is_away = False
        while not self._stopping.wait(_LOOK_S):
            try:
                self._look()
                is_away = False
            except UnavailableError as error:  # cameras that are read go on: nobody else can take them either
                if not is_away:
                    _log.warning("cameras cannot be followed", reason=str(error))
                is_away = True
        for name in list(self._reading):
            self._stop(name)

    def _look(self) -> None:
        cameras = self._store.load()
        for name, reading in list(self._reading.items()):
            if cameras.get(name) != reading.camera or not self._store.lease(name, self._owner):
                self._stop(name)
        for name, camera in cameras.items():
            if name not in self._reading and self._store.lease(name, self._owner):
                self._begin(name, camera)
            elif name in self._reading and self._is_lost(self._reading[name]):
                self._stop(name, is_kept=True)
                self._begin(name, camera)
        self._refused = {name: refused for name, refused in self._refused.items() if cameras.get(name) == refused[0]}
        if self._clock() - self._told_s >= _TELL_S:
            self._told_s = self._clock()
            self._store.tell({**{name: _refusal(*r) for name, r in self._refused.items()}, **self._facts()})

    def _begin(self, name: str, camera: Camera) -> None:
        try:
            place = check_url(camera.url, SCHEMES, self._allowed)
        except UsageError as error:  # looked up again next time: names come and go
            if self._refused.get(name) != (camera, str(error)):
                _log.warning("camera refused", stream=name, reason=str(error))
            self._refused[name] = (camera, str(error))
            return
        self._refused.pop(name, None)
        spec = SourceSpec(camera.url, address=place.address)
        ingestor = Ingestor({name: spec}, self._settings, self._producer)
        ingestor.start()
        self._reading[name] = _Reading(camera, ingestor, self._clock())
        _log.info("camera added", stream=name, source=spec.shown)

    def _stop(self, name: str, *, is_kept: bool = False) -> None:
        reading = self._reading.pop(name)
        # On a thread of its own: a camera that dawdles must not cost the others their leases.
        threading.Thread(target=reading.ingestor.stop, name=f"end-{name}", daemon=True).start()
        if not is_kept:
            _log.info("camera left", stream=name)
            self._store.release(name, self._owner)

    def _is_lost(self, reading: _Reading) -> bool:
        """It is tried again in vain: its name may mean another address by now."""
        state = reading.ingestor.facts()[0].state
        return state in ("waiting", "failed", "ended") and self._clock() - reading.resolved_s > _RESOLVE_AGAIN_S

    def _facts(self) -> dict[str, dict[str, Any]]:
        return {name: asdict(reading.ingestor.facts()[0]) for name, reading in self._reading.items()}


def _refusal(camera: Camera, reason: str) -> dict[str, Any]:
    return {"source": redact(camera.url), "state": "refused", "last_error": reason}
