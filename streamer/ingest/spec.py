"""What a source is and what it is called."""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from streamer.errors import SourceError, UsageError
from streamer.ingest.redact import redact
from streamer.media import is_stream_id

STDIN: Final = "-"
SCHEMES: Final = ("rtsp", "rtsps", "http", "https")
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_DEVICE: Final = re.compile(r"/dev/video\d+")
_NAME_RULE: Final = "lower-case letters, digits, '.', '_' and '-', at most 63"


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """One source.

    Attributes:
        url: A file, a folder of pictures, ``/dev/videoN``, an RTSP or HTTP address, or ``-``. Holds credentials:
            show `shown` instead.
        rate: Times real time for what has an end; None: as fast as possible. A camera has its own pace.
        loop: Begin again at the end; capture time goes on.
        start_us: Capture time of the first sample of what has an end; None: now.
        image_rate_hz: Pictures a second of a folder.
        address: Connect to this instead of looking the host up again: it was checked. Then no redirect is followed and
            no playlist read, which could lead elsewhere.
    """

    url: str
    rate: float | None = 1.0
    loop: bool = False
    start_us: int | None = None
    image_rate_hz: float = 1.0
    address: str = ""

    @property
    def scheme(self) -> str:
        """Of the address, in lower case; empty for a path."""
        found = _SCHEME.match(self.url)
        return found[1].lower() if found else ""

    @property
    def dialled(self) -> str:
        """The address to connect to, with the checked one in place of the host's name."""
        if not self.address:
            return self.url
        parts = urlsplit(self.url)
        userinfo, at, _ = parts.netloc.rpartition("@")
        host = f"[{self.address}]" if ":" in self.address else self.address
        port = f":{parts.port}" if parts.port else ""
        return urlunsplit(parts._replace(netloc=f"{userinfo}{at}{host}{port}"))

    @property
    def is_device(self) -> bool:
        """A webcam."""
        return _DEVICE.fullmatch(self.url) is not None

    @property
    def shown(self) -> str:
        """The address as it may be printed."""
        return redact(self.url)


def check_url(url: str) -> str:
    """Refuse what no source can be.

    Raises:
        UsageError: It is empty or has a scheme that is not read.
    """
    if not url:
        raise UsageError("a source is empty; a file, a folder, /dev/videoN, rtsp://..., http://... or - is expected")
    scheme = SourceSpec(url).scheme
    if scheme and scheme not in SCHEMES:
        raise UsageError(f"source {redact(url)} has scheme {scheme}; {', '.join(SCHEMES)} and plain paths are read")
    if scheme and not _host(url):
        raise UsageError(f"source {redact(url)} names no host; {scheme}://HOST[:PORT]/PATH is expected")
    return url


def check_exists(spec: SourceSpec) -> None:
    """Tell of a file that is not there, before anything is started for it.

    Raises:
        SourceError: It is not there.
    """
    if not spec.scheme and spec.url != STDIN and not Path(spec.url).exists():
        raise SourceError(f"source {spec.shown} does not exist; check the path")


def parse_sources(arguments: Iterable[str]) -> dict[str, str]:
    """Take ``NAME=URL`` arguments apart.

    Returns:
        Name to address, in the order given.

    Raises:
        UsageError: An argument has another form, a name is no stream id, or stands twice.
    """
    found: dict[str, str] = {}
    for argument in arguments:
        name, mark, url = argument.partition("=")
        if not mark or "://" in name or "/" in name:
            raise UsageError(f"source {redact(argument)} has no name; NAME=URL is expected, such as yard=clip.mp4")
        if not is_stream_id(name):
            raise UsageError(f"source name {redact(name)!r} is not allowed; use {_NAME_RULE}, such as yard-2")
        if name in found:
            raise UsageError(f"source name {name!r} stands twice; each stream needs a name of its own")
        found[name] = check_url(url)
    if not found:
        raise UsageError("no source is given; NAME=URL is expected, such as yard=rtsp://camera/stream")
    if sum(url == STDIN for url in found.values()) > 1:
        raise UsageError("only one source can be -, standard input")
    return found


def name_for(source: str, taken: Collection[str]) -> str:
    """A stream id made from an address or path that is in no other stream's way.

    ``clips/Yard 2.mp4`` becomes ``yard-2``, ``rtsp://user:pw@10.0.0.7/live`` becomes ``10.0.0.7-live``.
    """
    stem = _slug(_stem(source))
    name = stem
    number = 1
    while name in taken:
        number += 1
        name = f"{stem[: 62 - len(str(number))]}-{number}"
    return name


def _stem(source: str) -> str:
    if source == STDIN:
        return "stdin"
    spec = SourceSpec(source)
    if not spec.scheme:
        return PurePosixPath(source).stem
    path = PurePosixPath(redact(source).partition("://")[2].partition("?")[0].rpartition("@")[2].partition("/")[2])
    return f"{_host(source)}-{path.stem}" if path.stem else _host(source)


def _host(url: str) -> str:
    shown = redact(url)
    try:
        return urlsplit(shown).hostname or ""
    except ValueError:
        return ""


def _slug(text: str) -> str:
    slug = re.sub(r"[^a-z0-9._-]+", "-", text.lower())
    slug = re.sub(r"-{2,}", "-", slug).strip("-._")[:63].rstrip("-._")
    return slug or "source"
