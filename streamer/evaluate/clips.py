"""Files as the chunks that ingest would send of them."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from models.evaluate.manifest import EvaluationError
from streamer.errors import SourceError
from streamer.ingest.session import Session
from streamer.ingest.spec import SourceSpec
from streamer.settings import Settings
from streamer.types import MediaChunk, Position

START_US = 1_700_000_000_000_000  # any capture time will do, but the same each time
_PICTURE_US = 1_000_000
_MAGIC = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG\r\n\x1a\n": "image/png"}


@dataclass(frozen=True, slots=True)
class Clip:
    """A file that is watched as a stream of its own.

    Attributes:
        name: Stream id, different for each clip of a run.
        path: The file.
        is_picture: A single picture; else video or sound.
    """

    name: str
    path: Path
    is_picture: bool = False

    def chunks(self, settings: Settings) -> Iterator[MediaChunk]:
        """What ingest would send; the last one says so.

        Raises:
            EvaluationError: The file is missing, or nothing of it can be used.
        """
        pieces = self._picture() if self.is_picture else self._film(settings)
        for number, chunk in enumerate(pieces):
            yield replace(chunk, position=Position("file", 0, number))

    def _picture(self) -> Iterator[MediaChunk]:
        try:
            payload = self.path.read_bytes()
        except OSError as error:
            raise EvaluationError(f"{self.path} cannot be read: {error.strerror}") from error
        content_type = next((known for magic, known in _MAGIC.items() if payload.startswith(magic)), None)
        if content_type is None:
            raise EvaluationError(f"{self.path} is neither JPEG nor PNG")
        place = Position("file", 0, 0)
        yield MediaChunk(self.name, content_type, payload, START_US, place, duration_us=_PICTURE_US, is_last=True)

    def _film(self, settings: Settings) -> Iterator[MediaChunk]:
        if not self.path.is_file():
            raise EvaluationError(f"{self.path} is missing or no file")
        spec = SourceSpec(str(self.path), rate=None, start_us=START_US)
        session = Session(self.name, spec, settings, threading.Event(), lambda _: None)
        try:
            yield from session.chunks()
        except SourceError as error:
            raise EvaluationError(str(error)) from error
