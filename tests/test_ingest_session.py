import io
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
import PIL.Image
import pytest

from streamer.errors import SourceError
from streamer.ingest.session import Session
from streamer.ingest.spec import SourceSpec
from streamer.settings import Settings, load_settings
from streamer.types import MediaChunk
from tests.footage import bikes, make_clip, make_tone

DATA = Path(__file__).parent / "data"
START_US = 1_764_000_000_000_000
DEMUXERS = {"video/mp2t": "mpegts", "video/mp4": "mp4", "audio/wav": "wav", "audio/flac": "flac"}
PICTURE_CODECS = {"h264", "mjpeg", "vp9", "mpeg4"}


@dataclass
class Reading:
    """What a session gave."""

    chunks: list[MediaChunk] = field(default_factory=list)
    drops: list[str] = field(default_factory=list)

    @property
    def end_us(self) -> int:
        return max(chunk.capture_us + (chunk.duration_us or 0) for chunk in self.chunks)


def settings_with(**ingest: object) -> Settings:
    return load_settings(flags={f"ingest.{key}": value for key, value in ingest.items()})


def read(path: Path, *, settings: Settings | None = None, loop_until: int = 0, **spec: object) -> Reading:
    """Read a source as fast as it comes; with ``loop_until``, stop after so many chunks."""
    reading = Reading()
    stop = threading.Event()
    source = SourceSpec(str(path), rate=None, start_us=START_US, loop=bool(loop_until), **spec)  # type: ignore[arg-type]
    for chunk in Session("x", source, settings or load_settings(), stop, reading.drops.append).chunks():
        reading.chunks.append(chunk)
        if len(reading.chunks) == loop_until:
            stop.set()
    return reading


def picture_times_us(chunk: MediaChunk) -> list[int]:
    """Capture time of every picture that a chunk decodes to, alone."""
    starts_us, frames, is_first = [], [], True
    with av.open(io.BytesIO(chunk.payload), mode="r", format=DEMUXERS[chunk.content_type]) as container:
        for packet in container.demux():
            if packet.pts is not None:
                starts_us.append(float(packet.pts * packet.time_base) * 1e6)
            if packet.stream.type == "video":
                assert packet.is_keyframe or not is_first
                is_first = False
                frames += [frame for frame in packet.decode() if isinstance(frame, av.VideoFrame)]
    return sorted(round(chunk.capture_us + (frame.time or 0.0) * 1e6 - min(starts_us)) for frame in frames)


def sound_of(chunk: MediaChunk) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Mono samples of a chunk that holds sound alone."""
    with av.open(io.BytesIO(chunk.payload), mode="r", format=DEMUXERS[chunk.content_type]) as container:
        resampler = av.AudioResampler(format="flt", layout="mono")
        frames = [part for frame in container.decode(audio=0) for part in resampler.resample(frame)]
    return np.concatenate([frame.to_ndarray()[0] for frame in frames])


def source_times_us(path: Path) -> list[int]:
    with av.open(str(path), mode="r") as container:
        start_s = (container.start_time or 0) / 1e6
        return sorted(
            round((frame.time - start_s) * 1e6) for frame in container.decode(video=0) if frame.time is not None
        )


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("clips") / "street.mp4", sound="aac")


@pytest.mark.parametrize("name", ["bikes", "cars", "street"])
def test_every_chunk_decodes_alone_and_together_they_are_the_film(name: str, street: Path) -> None:
    path = {"bikes": bikes(), "cars": DATA / "ingest_cars.mp4", "street": street}[name]
    reading = read(path)
    times_us = sorted(time for chunk in reading.chunks for time in picture_times_us(chunk))
    expected_us = [START_US + time for time in source_times_us(path)]
    assert len(times_us) == len(expected_us)
    assert np.abs(np.array(times_us) - expected_us).max() <= 30  # MPEG-TS counts in 11 us
    assert not reading.drops


def test_chunks_end_at_the_first_keyframe_after_the_length_set(street: Path) -> None:
    assert len(read(street).chunks) == 4
    two = read(street, settings=settings_with(chunk_s=2.0)).chunks
    assert [len(picture_times_us(chunk)) for chunk in two] == [50, 50]


def test_a_keyframe_a_little_early_ends_a_chunk_rather_than_the_next_one_much_later(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "early.mp4", options={"g": "24", "sc_threshold": "0"}, seconds=3.84)
    assert [len(picture_times_us(chunk)) for chunk in read(path).chunks] == [24, 24, 24, 24]


def test_chunks_are_numbered_in_one_session_and_the_last_says_so(street: Path) -> None:
    chunks = read(street).chunks
    assert [chunk.seq for chunk in chunks] == [0, 1, 2, 3]
    assert len({chunk.session for chunk in chunks}) == 1
    assert [chunk.is_last for chunk in chunks] == [False, False, False, True]
    assert read(street).chunks[0].session != chunks[0].session


def test_picture_and_sound_travel_together(street: Path) -> None:
    for chunk in read(street).chunks:
        with av.open(io.BytesIO(chunk.payload), mode="r", format="mpegts") as container:
            assert [stream.type for stream in container.streams] == ["video", "audio"]


def test_a_chunk_is_never_larger_than_the_limit_while_keyframes_allow_it() -> None:
    limit = 180_000
    reading = read(bikes(), settings=settings_with(chunk_s=10.0, chunk_max_bytes=limit))
    assert max(len(chunk.payload) for chunk in reading.chunks) <= limit
    assert len(reading.chunks) > 2
    assert sum(len(picture_times_us(chunk)) for chunk in reading.chunks) == 250


def test_a_group_of_pictures_over_the_limit_is_left_out_and_said_and_the_rest_goes_on() -> None:
    reading = read(bikes(), settings=settings_with(chunk_max_bytes=100_000))
    assert max(len(chunk.payload) for chunk in reading.chunks) <= 100_000
    assert 0 < sum(len(picture_times_us(chunk)) for chunk in reading.chunks) < 250
    assert reading.drops
    assert "ingest.chunk_max_bytes = 100000" in reading.drops[0]
    assert "shorter keyframe interval" in reading.drops[0]


def test_a_looped_file_has_one_capture_time_without_gaps(street: Path) -> None:
    chunks = read(street, loop_until=11).chunks
    assert [chunk.seq for chunk in chunks[:11]] == list(range(11))
    times_us = np.array([time for chunk in chunks for time in picture_times_us(chunk)])
    assert (np.diff(times_us) > 0).all()
    assert np.diff(times_us).max() < 150_000  # the tone is a little longer than the film


def test_without_a_start_a_file_begins_now(street: Path) -> None:
    session = Session(
        "x", SourceSpec(str(street), rate=None), load_settings(), threading.Event(), _refuse_drop, lambda: START_US
    )
    assert picture_times_us(next(session.chunks()))[0] == pytest.approx(START_US, abs=30)


def test_a_long_recording_read_at_once_ends_before_the_limit_of_the_future(street: Path) -> None:
    settings = load_settings(flags={"decode.max_future_s": 2.0})
    session = Session(
        "x", SourceSpec(str(street), rate=None), settings, threading.Event(), _refuse_drop, lambda: START_US
    )
    chunks = list(session.chunks())
    assert chunks[-1].capture_us + (chunks[-1].duration_us or 0) <= START_US + 1_100_000


def test_real_time_takes_as_long_as_the_film_over_the_rate(street: Path) -> None:
    waits: list[float] = []

    class Clocked(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout or 0.0)
            return False

    session = Session("x", SourceSpec(str(street), rate=2.0), load_settings(), Clocked(), _refuse_drop)
    list(session.chunks())
    assert waits == pytest.approx([0.5, 1.0, 1.5, 2.0], abs=0.3)


@pytest.mark.parametrize(
    ("suffix", "codec", "options", "pix_fmt", "content_type"),
    [
        ("avi", "mjpeg", {}, "yuvj420p", "video/mp4"),
        ("webm", "libvpx-vp9", {"g": "25", "deadline": "realtime", "cpu-used": "8"}, "yuv420p", "video/mp4"),
        ("avi", "mpeg4", {"g": "25"}, "yuv420p", "video/mp2t"),
        ("avi", "rawvideo", {}, "yuv420p", "video/mp2t"),
        ("wmv", "wmv2", {"g": "25"}, "yuv420p", "video/mp2t"),
    ],
)
def test_whatever_the_codec_every_picture_arrives_in_chunks_that_decode_alone(
    tmp_path: Path, suffix: str, codec: str, options: dict[str, str], pix_fmt: str, content_type: str
) -> None:
    path = make_clip(tmp_path / f"clip.{suffix}", codec=codec, options=options, pix_fmt=pix_fmt, seconds=3.0)
    reading = read(path)
    assert {chunk.content_type for chunk in reading.chunks} == {content_type}
    assert len(reading.chunks) == 3
    times_us = np.array([time for chunk in reading.chunks for time in picture_times_us(chunk)])
    assert len(times_us) == 75
    assert np.abs(np.diff(times_us) - 40_000).max() <= 1_100  # WMV counts in milliseconds
    assert not reading.drops


def test_a_telephones_film_keeps_its_rotation(street: Path, tmp_path: Path) -> None:
    turned = tmp_path / "turned.mp4"
    turned.write_bytes(_turned(street.read_bytes()))
    chunks = read(turned).chunks
    assert {chunk.content_type for chunk in chunks} == {"video/mp4"}
    for chunk, upright in zip(chunks, read(street).chunks, strict=True):
        with av.open(io.BytesIO(chunk.payload), mode="r", format="mp4") as container:
            assert next(container.decode(video=0)).rotation == -90
        assert picture_times_us(chunk) == pytest.approx(picture_times_us(upright), abs=1_000)


def test_pictures_that_need_the_chunk_before_are_left_out_at_the_start_of_a_chunk(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "open.ts", codec="mpeg2video", options={"g": "12", "bf": "2"})
    chunks = read(path).chunks
    times_us = [picture_times_us(chunk) for chunk in chunks]
    assert len(chunks) > 2
    assert all(times[0] - chunk.capture_us <= 40_000 for times, chunk in zip(times_us, chunks, strict=True))
    assert sum(map(len, times_us)) == 100 - 2 * (
        len(chunks) - 1
    )  # each cut costs the two B-pictures before its keyframe


def test_sound_that_does_not_fit_beside_the_picture_travels_on_its_own(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "clip.mov", sound="pcm_mulaw", sound_hz=8_000)
    chunks = read(path).chunks
    assert {chunk.content_type for chunk in chunks} == {"video/mp2t", "audio/wav"}
    assert [chunk.seq for chunk in chunks] == list(range(len(chunks)))
    assert [chunk.is_last for chunk in chunks].count(True) == 1
    assert chunks[-1].is_last
    sound = [chunk for chunk in chunks if chunk.content_type == "audio/wav"]
    assert sum(sound_of(chunk).size for chunk in sound) == 4 * 8_000


@pytest.mark.parametrize(
    ("suffix", "codec", "layout", "content_type"),
    [
        ("wav", "pcm_s16le", "mono", "audio/wav"),
        ("flac", "flac", "stereo", "audio/flac"),
        ("ogg", "libopus", "stereo", "audio/flac"),
        ("mp3", "libmp3lame", "mono", "audio/flac"),
        ("m4a", "aac", "stereo", "audio/flac"),
        ("aiff", "pcm_s16be", "mono", "audio/flac"),
    ],
)
def test_sound_alone_is_cut_without_a_click(
    tmp_path: Path, suffix: str, codec: str, layout: str, content_type: str
) -> None:
    path = make_tone(tmp_path / f"tone.{suffix}", codec, layout=layout)
    reading = read(path)
    assert {chunk.content_type for chunk in reading.chunks} == {content_type}
    assert len(reading.chunks) in (3, 4)
    together = np.concatenate([sound_of(chunk) for chunk in reading.chunks])
    whole = _decoded(path)
    assert abs(together.size - whole.size) <= 2_304  # an encoder's padding at the end
    common = min(together.size, whole.size)
    assert np.abs(together[:common] - whole[:common]).max() < 1e-4
    ends_us = [chunk.capture_us + (chunk.duration_us or 0) for chunk in reading.chunks]
    assert np.abs(np.array(ends_us[:-1]) - [chunk.capture_us for chunk in reading.chunks[1:]]).max() <= 100


def test_a_recorded_siren_in_vorbis_comes_out_as_it_is_decoded_in_one_go() -> None:
    path = DATA / "ingest_siren.ogg"
    together = np.concatenate([sound_of(chunk) for chunk in read(path).chunks])
    assert np.abs(together - _decoded(path)).max() < 1e-4


def test_a_folder_gives_its_pictures_by_name_at_the_rate_set(tmp_path: Path) -> None:
    with av.open(str(bikes()), mode="r") as container:
        frame = next(container.decode(video=0))
    for name in ("b.png", "a.jpg", "c.JPG"):
        PIL.Image.fromarray(frame.to_ndarray(format="rgb24")).save(tmp_path / name)
    (tmp_path / "d.jpg").write_bytes(b"not a picture")
    (tmp_path / "notes.txt").write_text("nothing to see")
    reading = read(tmp_path, image_rate_hz=2.0)
    assert [chunk.content_type for chunk in reading.chunks] == ["image/jpeg", "image/png", "image/jpeg"]
    assert [chunk.capture_us - START_US for chunk in reading.chunks] == [0, 500_000, 1_000_000]
    assert reading.chunks[0].payload == (tmp_path / "a.jpg").read_bytes()
    assert reading.chunks[-1].is_last
    assert reading.drops == ["d.jpg is neither JPEG nor PNG"]


def _turned(film: bytes) -> bytes:
    """An MP4 with a quarter turn written into the matrix of its first track's header."""
    at = film.index(b"tkhd") + 4 + 40
    matrix = (0, 1 << 16, 0, -1 << 16, 0, 0, 96 << 16, 0, 1 << 30)
    return film[:at] + b"".join(value.to_bytes(4, "big", signed=True) for value in matrix) + film[at + 36 :]


def _write_playlist(folder: Path) -> Path:
    path = folder / "list.ffconcat"
    path.write_text(f"ffconcat version 1.0\nfile {DATA / 'ingest_cars.mp4'}\n")
    return path


def _write_m3u8(folder: Path) -> Path:
    path = folder / "list.m3u8"
    path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:8\n#EXTINF:8,\n{DATA / 'ingest_cars.mp4'}\n#EXT-X-ENDLIST\n")
    return path


def _write_text(folder: Path) -> Path:
    path = folder / "clip.mp4"
    path.write_text("hello")
    return path


@pytest.mark.parametrize(
    "make",
    [_write_playlist, _write_m3u8, _write_text, lambda folder: folder / "absent.mp4", lambda folder: folder],
    ids=["concat", "m3u8", "text", "absent", "empty folder"],
)
def test_what_cannot_be_read_is_one_error_that_names_it(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    path = make(tmp_path)
    with pytest.raises(SourceError, match=str(path)):
        read(path)


def test_a_webcam_that_is_not_there_is_one_error_that_says_what_to_check() -> None:
    with pytest.raises(SourceError, match=r"/dev/video987 cannot be opened: No such file.*plugged in"):
        read(Path("/dev/video987"))


def test_a_truncated_file_gives_what_it_has(tmp_path: Path) -> None:
    whole = make_clip(tmp_path / "whole.ts")
    cut = tmp_path / "cut.ts"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    chunks = read(cut).chunks
    assert 1 < len(chunks) < 4
    assert chunks[-1].is_last


def _refuse_drop(why: str) -> None:
    raise AssertionError(why)


def _decoded(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    with av.open(str(path), mode="r") as container:
        resampler = av.AudioResampler(format="s16", layout=container.streams.audio[0].layout.name)
        widen = av.AudioResampler(format="flt", layout="mono")
        parts = [
            wide.to_ndarray()[0]
            for frame in container.decode(audio=0)
            for narrow in resampler.resample(frame)
            for wide in widen.resample(narrow)
        ]
    return np.concatenate(parts)
