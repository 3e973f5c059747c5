"""How workers and the API learn of masks and labels that change while they run."""

import threading
from typing import Final

import structlog

from streamer.errors import SettingsError, UnavailableError
from streamer.settings import Settings, StreamSettings
from streamer.stream_store import StreamStore, StreamTable

_POLL_S: Final = 0.25
_log = structlog.get_logger(__name__)


class StreamFollower:
    """Asks for the count of changes a few times a second, on a thread of its own, and reads everything when it grew.

    While Redis is away, or what it says cannot be read, the last table stands.

    Args:
        store: Whose labels and masks.
        settings: What holds beside them.
        poll_s: Between two looks.
    """

    def __init__(self, store: StreamStore, settings: Settings, *, poll_s: float = _POLL_S) -> None:
        self._store = store
        self._settings = settings
        self._poll_s = poll_s
        self._serial = -1
        self._table = StreamTable(settings, {})
        self._is_told = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stream-settings", daemon=True)

    @property
    def is_loaded(self) -> bool:
        """What stood in Redis is in force: before that a picture might be looked at without its mask."""
        return self._serial >= 0

    @property
    def table(self) -> StreamTable:
        """The newest. Takes no lock."""
        return self._table

    def of(self, stream: str) -> StreamSettings:
        """Labels and masks of a stream now."""
        return self._table.of(stream)

    def start(self) -> None:
        """Begin to follow; returns at once."""
        self._thread.start()

    def close(self) -> None:
        """Stop following; the last table stays."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def look(self) -> None:
        """Look now, instead of a moment later.

        Raises:
            UnavailableError: Redis is away.
            SettingsError: What it says cannot be read.
        """
        if self._store.serial() != self._serial:
            serial, entries = self._store.load()
            self._table = StreamTable(self._settings, entries)
            self._serial = serial

    def _run(self) -> None:
        while True:
            try:
                self.look()
                self._is_told = False
            except (UnavailableError, SettingsError) as error:
                if not self._is_told:
                    _log.warning("masks and labels cannot be followed, the last ones stay in force", reason=str(error))
                self._is_told = True
            if self._stopping.wait(self._poll_s):
                return
