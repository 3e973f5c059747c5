"""A folder of pictures as a source: each file is a piece, as it is."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from streamer.errors import SourceError
from streamer.ingest.cut import OnDrop, Piece

_MAGIC: Final = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG\r\n\x1a\n": "image/png"}
_SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png"})


def list_pictures(folder: Path) -> list[Path]:
    """The pictures in a folder, by name.

    Raises:
        SourceError: There are none, or the folder cannot be read.
    """
    try:
        found = sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES and path.is_file())
    except OSError as error:
        raise SourceError(f"folder {folder} cannot be read: {error.strerror}; check its permissions") from error
    if not found:
        raise SourceError(f"folder {folder} holds no .jpg, .jpeg or .png; name a folder with pictures")
    return found


def picture_pieces(paths: list[Path], at_us: int, rate_hz: float, max_bytes: int, on_drop: OnDrop) -> Iterator[Piece]:
    """One piece per picture, ``1 / rate_hz`` apart from ``at_us`` on."""
    for number, path in enumerate(paths):
        start_us, end_us = (at_us + round(step * 1e6 / rate_hz) for step in (number, number + 1))
        try:
            payload = path.read_bytes()
        except OSError as error:
            on_drop(f"picture {path.name} cannot be read: {error.strerror}")
            continue
        content_type = next((known for magic, known in _MAGIC.items() if payload.startswith(magic)), None)
        if content_type is None:
            on_drop(f"{path.name} is neither JPEG nor PNG")
        elif len(payload) > max_bytes:
            on_drop(f"picture {path.name} of {len(payload)} bytes is over ingest.chunk_max_bytes = {max_bytes}")
        else:
            yield Piece(content_type, payload, start_us, end_us)
