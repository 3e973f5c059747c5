"""Real footage and made clips through the decoder, and what hostile bytes come to."""

import io
import itertools
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from streamer.decode import DecodeOptions, decode_chunk
from streamer.demux import REASONS, Limits
from streamer.errors import ChunkError
from streamer.masks import rasterise
from streamer.settings import load_settings
from streamer.still import decode_still, decode_stills
from streamer.types import Decoded, Effort, MediaChunk, Polygon, Position
from tests.footage import bikes, make_clip, make_tone

CAPTURE_US = 1_700_000_000_000_000
OPTIONS = DecodeOptions.of(load_settings().decode, size=64)
MOTION = replace(OPTIONS, effort="motion")
KEYFRAMES = replace(OPTIONS, effort="keyframes")
SUFFIXES = {
    "video/mp2t": ".ts",
    "video/mp4": ".mp4",
    "audio/wav": ".wav",
    "audio/flac": ".flac",
    "audio/ogg": ".ogg",
    "audio/aac": ".aac",
}


def a_chunk(payload: bytes, content_type: str = "video/mp2t", **fields: Any) -> MediaChunk:
    return MediaChunk(
        "yard", content_type, payload, fields.pop("capture_us", CAPTURE_US), Position("media", 0, 7), **fields
    )


def times_s(decoded: Decoded) -> list[float]:
    return [(at - CAPTURE_US) / 1e6 for at in decoded.times_us.tolist()]


def png_of(pixels: NDArray[np.uint8], form: str = "PNG", **options: Any) -> bytes:
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, form, **options)
    return target.getvalue()


def encoded(
    frames: Sequence[NDArray[np.uint8]],
    *,
    container: str = "mpegts",
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    rate: int = 25,
    options: dict[str, str] | None = None,
    pts: Callable[[int], int] = lambda number: number,
) -> bytes:
    """Frames, uint8 ``(H, W, 3)``, through an encoder."""
    target = io.BytesIO()
    with av.open(target, "w", format=container) as muxer:
        stream: Any = muxer.add_stream(codec, rate=rate, options={"threads": "1", **(options or {})})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pix_fmt
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24").reformat(format=pix_fmt)
            frame.pts, frame.time_base = pts(number), Fraction(1, rate)
            muxer.mux(stream.encode(frame))
        muxer.mux(stream.encode(None))
    return target.getvalue()


def noise_frames(count: int, height: int, width: int, seed: int = 0) -> list[NDArray[np.uint8]]:
    return list(np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8))


def wav_of(samples: NDArray[np.int16], rate_hz: int, channels: int = 1) -> bytes:
    data = samples.astype("<i2").tobytes()
    head = struct.pack("<4sI4s4sIHHIIHH", b"RIFF", 36 + len(data), b"WAVE", b"fmt ", 16, 1, channels, rate_hz,
                       rate_hz * channels * 2, channels * 2, 16)  # fmt: skip
    return head + struct.pack("<4sI", b"data", len(data)) + data


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """One good payload for every content type."""
    folder = tmp_path_factory.mktemp("media")
    paths = {
        "video/mp2t": make_clip(folder / "a.ts", sound="aac"),
        "video/mp4": make_clip(folder / "a.mp4", sound="aac"),
        "audio/wav": make_tone(folder / "a.wav", "pcm_s16le"),
        "audio/flac": make_tone(folder / "a.flac", "flac"),
        "audio/ogg": make_tone(folder / "a.ogg", "libopus"),
        "audio/aac": make_tone(folder / "a.aac", "aac"),
    }
    street = first_frame()
    stills = {"image/png": png_of(street), "image/jpeg": png_of(street, "JPEG", quality=90)}
    return {kind: path.read_bytes() for kind, path in paths.items()} | stills


def first_frame() -> NDArray[np.uint8]:
    with av.open(str(bikes())) as source:
        return next(source.decode(video=0)).to_ndarray(format="rgb24").astype(np.uint8)


# --- pictures ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("content_type", ["video/mp2t", "video/mp4"])
def test_motion_takes_the_first_frame_at_or_after_each_point_of_the_grid(tmp_path: Path, content_type: str) -> None:
    payload = make_clip(tmp_path / f"a{SUFFIXES[content_type]}").read_bytes()
    decoded = decode_chunk(a_chunk(payload, content_type), MOTION)
    assert times_s(decoded)[:9] == pytest.approx([0, 0.16, 0.28, 0.4, 0.52, 0.64, 0.76, 0.88, 1.0], abs=1e-4)
    assert decoded.pixels.shape == (32, 64, 64, 3)
    assert decoded.thumbs.shape == (32, 32, 32)
    assert decoded.effort is Effort.MOTION
    assert decoded.source_frames == 100
    assert decoded.start_us == CAPTURE_US
    assert decoded.picture_end_us == CAPTURE_US + 4_000_000
    assert not decoded.pixels.flags.writeable


def test_frames_show_what_the_whole_picture_showed(media: dict[str, bytes]) -> None:
    decoded = decode_chunk(a_chunk(media["image/png"], "image/png"), OPTIONS)
    expected = np.asarray(Image.fromarray(first_frame()).resize((64, 64), Image.Resampling.BOX))
    assert np.abs(decoded.pixels[0].astype(float) - expected).mean() < 3
    luma = np.asarray(Image.fromarray(decoded.pixels[0]).convert("L").resize((32, 32), Image.Resampling.BOX))
    assert np.abs(decoded.thumbs[0].astype(float) - luma).mean() < 1.5


def test_keyframes_are_those_of_the_quiet_grid(tmp_path: Path) -> None:
    decoded = decode_chunk(a_chunk(make_clip(tmp_path / "a.ts").read_bytes()), KEYFRAMES)
    assert times_s(decoded) == pytest.approx([0, 1, 2, 3], abs=1e-4)
    assert decoded.effort is Effort.KEYFRAMES


def test_a_chunk_with_rare_keyframes_gives_at_least_one(tmp_path: Path) -> None:
    payload = make_clip(tmp_path / "a.ts", seconds=3, options={"g": "250"}).read_bytes()
    decoded = decode_chunk(a_chunk(payload, capture_us=CAPTURE_US + 300_000), replace(KEYFRAMES, quiet_rate_hz=0.1))
    assert len(decoded.times_us) == 1


def test_the_grid_does_not_depend_on_where_chunks_begin(tmp_path: Path) -> None:
    whole = make_clip(tmp_path / "a.ts", seconds=6).read_bytes()
    start_us = CAPTURE_US + 77_000
    expected = decode_chunk(a_chunk(whole, capture_us=start_us), MOTION).times_us
    got: list[int] = []
    for shift_us, payload in cut_at_keyframes(whole):
        got += decode_chunk(a_chunk(payload, capture_us=start_us + shift_us), MOTION).times_us.tolist()
    assert np.abs(np.array(got) - expected).max() <= 12  # microseconds: a tick of MPEG-TS


def cut_at_keyframes(payload: bytes) -> list[tuple[int, bytes]]:
    """MPEG-TS chunks of one group of pictures, with their start in microseconds."""
    cuts: list[tuple[int, bytes]] = []
    with av.open(io.BytesIO(payload), "r", format="mpegts") as source:
        stream = source.streams.video[0]
        groups: list[list[Any]] = []
        for packet in source.demux(stream):
            if packet.size:
                if packet.is_keyframe:
                    groups.append([])
                groups[-1].append(packet)
        zero = min(packet.pts for packet in groups[0])
        for group in groups:
            target = io.BytesIO()
            with av.open(target, "w", format="mpegts") as muxer:
                copy = muxer.add_stream_from_template(stream)
                first = min(packet.pts for packet in group)
                for packet in group:
                    packet.stream = copy
                    muxer.mux(packet)
            cuts.append((round((first - zero) / 90_000 * 1e6), target.getvalue()))
    return cuts


@pytest.mark.parametrize("codec", ["libx264", "libx265", "mpeg2video"])
def test_leaving_out_what_nothing_refers_to_changes_no_pixel(tmp_path: Path, codec: str) -> None:
    options = {"bf": "3", "g": "50"} | ({"x265-params": "log-level=none"} if codec == "libx265" else {})
    payload = make_clip(tmp_path / "a.ts", seconds=3, codec=codec, options=options).read_bytes()
    some = decode_chunk(a_chunk(payload), MOTION)
    every = decode_chunk(a_chunk(payload), replace(MOTION, motion_rate_hz=25))
    assert len(every.times_us) == 75
    assert 20 <= len(some.times_us) <= 25
    places = np.searchsorted(every.times_us, some.times_us)
    np.testing.assert_array_equal(some.pixels, every.pixels[places])


def test_frames_before_the_first_keyframe_are_passed_over(tmp_path: Path) -> None:
    payload = make_clip(tmp_path / "a.ts", seconds=2).read_bytes()
    with av.open(io.BytesIO(payload), "r", format="mpegts") as source:
        stream = source.streams.video[0]
        target = io.BytesIO()
        with av.open(target, "w", format="mpegts") as muxer:
            copy = muxer.add_stream_from_template(stream)
            for number, packet in enumerate(source.demux(stream)):
                if number >= 10 and packet.size:
                    packet.stream = copy
                    muxer.mux(packet)
    decoded = decode_chunk(a_chunk(target.getvalue()), MOTION)
    assert times_s(decoded)[0] == pytest.approx(0.7, abs=0.1)  # not before the keyframe, a second into the clip


def test_a_still_scene_costs_its_keyframes_and_a_moving_one_more(tmp_path: Path) -> None:
    still = encoded([first_frame()] * 50, options={"g": "25"})
    moving = make_clip(tmp_path / "a.ts", seconds=2, side_px=(320, 136)).read_bytes()
    assert decode_chunk(a_chunk(still), OPTIONS).effort is Effort.KEYFRAMES
    assert decode_chunk(a_chunk(moving), OPTIONS).effort is Effort.MOTION


@pytest.mark.parametrize(("keyframe_every", "expected"), [(25, 6), (50, 3), (150, 6)])
def test_a_still_scene_with_rare_keyframes_is_still_looked_at(keyframe_every: int, expected: int) -> None:
    payload = encoded([first_frame()[:, :320]] * 150, options={"g": str(keyframe_every), "sc_threshold": "0"})
    decoded = decode_chunk(a_chunk(payload), OPTIONS)
    assert decoded.effort is Effort.KEYFRAMES
    assert len(decoded.times_us) == expected


def test_a_stream_of_nothing_but_keyframes_is_taken_at_the_rate_of_motion() -> None:
    payload = encoded([first_frame()] * 25, codec="mjpeg", pix_fmt="yuvj420p", container="mp4")
    assert len(decode_chunk(a_chunk(payload, "video/mp4"), OPTIONS).times_us) == 8


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_a_picture_is_a_frame_at_its_capture_time(form: str) -> None:
    payload = png_of(first_frame(), form)
    decoded = decode_chunk(a_chunk(payload, f"image/{form.lower()}", duration_us=40_000), OPTIONS)
    assert decoded.times_us.tolist() == [CAPTURE_US]
    assert (decoded.start_us, decoded.end_us) == (CAPTURE_US, CAPTURE_US + 40_000)
    assert decoded.has_picture
    assert not decoded.has_sound


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "I;16"])
def test_every_kind_of_png_becomes_rgb(mode: str) -> None:
    target = io.BytesIO()
    image = Image.fromarray(first_frame())
    (Image.new("I;16", (40, 30), 30_000) if mode == "I;16" else image.convert(mode)).save(target, "PNG")
    decoded = decode_chunk(a_chunk(target.getvalue(), "image/png"), OPTIONS)
    assert decoded.pixels.shape == (1, 64, 64, 3)
    assert decoded.pixels.any()


def test_a_picture_taken_with_a_turned_camera_is_upright() -> None:
    upright = np.zeros((60, 40, 3), np.uint8)
    upright[:20] = (255, 0, 0)  # red on top
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn me a quarter clockwise"
    payload = png_of(np.ascontiguousarray(np.rot90(upright)), "JPEG", exif=exif, quality=95)
    still = decode_still(a_chunk(payload, "image/jpeg"), CAPTURE_US, 1_000, ())
    assert still.shape == (60, 40, 3)
    assert np.abs(still.astype(float) - upright).mean() < 8
    square = decode_chunk(a_chunk(payload, "image/jpeg"), OPTIONS).pixels[0]
    assert square[5, :, 0].min() > 200
    assert square[40:, :, 0].max() < 60


# --- sound -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content_type", "codec", "rate_hz"),
    [
        ("audio/wav", "pcm_s16le", 44_100),
        ("audio/wav", "pcm_u8", 16_000),
        ("audio/wav", "pcm_s24le", 48_000),
        ("audio/wav", "pcm_f32le", 8_000),
        ("audio/flac", "flac", 48_000),
        ("audio/ogg", "libopus", 48_000),
        ("audio/aac", "aac", 48_000),
        ("video/mp2t", "mp2", 48_000),
        ("video/mp4", "aac", 16_000),
    ],
)
@pytest.mark.parametrize("layout", ["mono", "stereo"])
def test_a_tone_keeps_its_length_pitch_and_loudness(
    tmp_path: Path, content_type: str, codec: str, rate_hz: int, layout: str
) -> None:
    path = make_tone(tmp_path / f"a{SUFFIXES[content_type]}", codec, rate_hz=rate_hz, layout=layout)
    decoded = decode_chunk(a_chunk(path.read_bytes(), content_type), OPTIONS)
    assert decoded.samples.dtype == np.float32
    assert decoded.samples_start_us == CAPTURE_US
    assert len(decoded.samples) == pytest.approx(48_000, abs=2_100)
    middle = decoded.samples[8_000:40_000]
    spectrum = np.abs(np.fft.rfft(middle))
    assert spectrum.argmax() * 16_000 / len(middle) == pytest.approx(440, abs=1)
    assert np.sqrt(2) * middle.std() == pytest.approx(8_000 / 32_768, rel=0.05)
    assert decoded.has_sound
    assert not decoded.has_picture
    assert decoded.effort is Effort.NONE


@pytest.mark.parametrize("rate_hz", [16_000, 44_100, 48_000])
def test_a_click_keeps_its_moment(rate_hz: int) -> None:
    samples = np.zeros(rate_hz, np.int16)
    samples[rate_hz // 4] = 30_000
    decoded = decode_chunk(a_chunk(wav_of(samples, rate_hz), "audio/wav"), OPTIONS)
    assert abs(int(np.abs(decoded.samples).argmax()) - 4_000) <= 1
    assert len(decoded.samples) == pytest.approx(16_000, abs=1)


@pytest.mark.parametrize("codec", ["aac", "mp2"])
def test_lost_packets_are_silence_in_their_place(tmp_path: Path, codec: str) -> None:
    target = io.BytesIO()
    with (
        av.open(str(make_tone(tmp_path / "a.ts", codec, layout="stereo")), "r") as source,
        av.open(target, "w", format="mpegts") as muxer,
    ):
        copy = muxer.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(audio=0):
            if packet.size and not 1.5 <= float((packet.pts or 0) * packet.time_base) < 2.0:
                packet.stream = copy
                muxer.mux(packet)
    samples = decode_chunk(a_chunk(target.getvalue()), OPTIONS).samples
    assert len(samples) == pytest.approx(48_000, abs=2_100)
    loud = [bool(np.abs(samples[at : at + 1_600]).max() > 0.1) for at in range(1_600, 44_800, 1_600)]
    assert loud.count(False) in {3, 4, 5}
    assert loud[0]
    assert loud[-1]


def test_sound_and_picture_of_one_container_share_their_clock(media: dict[str, bytes]) -> None:
    decoded = decode_chunk(a_chunk(media["video/mp4"], "video/mp4"), MOTION)
    assert decoded.times_us[0] == CAPTURE_US
    assert decoded.samples_start_us == pytest.approx(CAPTURE_US, abs=25_000)
    assert len(decoded.samples) == pytest.approx(64_000, abs=1_100)
    assert decoded.has_sound


def test_real_footage_with_sound_decodes() -> None:
    payload = (Path(__file__).parent / "data" / "ingest_cars.mp4").read_bytes()
    decoded = decode_chunk(a_chunk(payload, "video/mp4"), OPTIONS)
    assert decoded.end_us - decoded.start_us == pytest.approx(8_000_000, abs=200_000)
    assert decoded.has_picture
    assert len(decoded.samples) == pytest.approx(128_000, abs=1_600)


def test_vorbis_decodes() -> None:
    payload = (Path(__file__).parent / "data" / "ingest_siren.ogg").read_bytes()
    decoded = decode_chunk(a_chunk(payload, "audio/ogg"), OPTIONS)
    assert len(decoded.samples) == pytest.approx(72_000, abs=1_600)
    assert decoded.samples.std() > 0.01


# --- masks -------------------------------------------------------------------------------------------

MASKS: tuple[Polygon, ...] = (
    ((0.1, 0.2), (0.45, 0.15), (0.4, 0.6), (0.2, 0.7)),
    ((0.8, 0.8), (1.0, 0.8), (1.0, 1.0)),
)


@pytest.mark.parametrize("side_px", [(96, 64), (640, 360), (64, 48), (50, 400)])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p"])
def test_nothing_under_a_mask_reaches_frames_thumbs_or_stills(side_px: tuple[int, int], pix_fmt: str) -> None:
    width, height = side_px
    one = noise_frames(6, height, width, seed=1)
    hidden = rasterise(MASKS, height, width)
    # Only pixels that lie wholly under the mask differ.
    inside = ~rasterise_outside(hidden)
    two = [
        np.where(inside[..., None], other, frame)
        for frame, other in zip(one, noise_frames(6, height, width, 2), strict=True)
    ]
    options = replace(MOTION, masks=MASKS, motion_rate_hz=25)
    lossless = {"qp": "0", "preset": "ultrafast"}
    chunks = [a_chunk(encoded(frames, pix_fmt=pix_fmt, options=lossless)) for frames in (one, two)]
    first, second = (decode_chunk(chunk, options) for chunk in chunks)
    assert len(first.times_us) == 6
    np.testing.assert_array_equal(first.pixels, second.pixels)
    np.testing.assert_array_equal(first.thumbs, second.thumbs)
    for max_side_px in (37, 1_000):
        stills = [decode_still(chunk, CAPTURE_US + 90_000, max_side_px, MASKS) for chunk in chunks]
        np.testing.assert_array_equal(stills[0], stills[1])
        assert stills[0].any()
    unmasked = [decode_chunk(chunk, replace(options, masks=())) for chunk in chunks]
    assert (unmasked[0].pixels != unmasked[1].pixels).any()


def rasterise_outside(hidden: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask is drawn a little too large; shrink it, so that what differs lies within the polygon."""
    padded = np.pad(~hidden, 2, mode="edge")
    near = [np.roll(padded, shift, axis=(0, 1)) for shift in itertools.product((-2, -1, 0, 1, 2), repeat=2)]
    grown: NDArray[np.bool_] = np.logical_or.reduce(near)[2:-2, 2:-2]
    return grown


def test_nothing_under_a_mask_reaches_a_picture() -> None:
    (one,), (other,) = noise_frames(1, 90, 120, 1), noise_frames(1, 90, 120, 2)
    inside = ~rasterise_outside(rasterise(MASKS, 90, 120))
    chunks = [a_chunk(png_of(pixels), "image/png") for pixels in (one, np.where(inside[..., None], other, one))]
    options = replace(OPTIONS, masks=MASKS)
    first, second = (decode_chunk(chunk, options).pixels for chunk in chunks)
    np.testing.assert_array_equal(first, second)
    first, second = (decode_still(chunk, CAPTURE_US, 500, MASKS) for chunk in chunks)
    np.testing.assert_array_equal(first, second)


# --- stills ------------------------------------------------------------------------------------------


def test_a_still_is_the_nearest_frame_at_its_own_shape() -> None:
    grey = [np.full((48, 96, 3), 8 * number, np.uint8) for number in range(30)]
    chunk = a_chunk(encoded(grey, options={"g": "10", "qp": "0"}))
    for number in (0, 3, 14, 29):
        still = decode_still(chunk, CAPTURE_US + number * 40_000 + 15_000, 48, ())
        assert still.shape == (24, 48, 3)
        assert np.abs(still.astype(float) - 8 * number).max() <= 6


def test_stills_of_several_times_come_in_one_pass() -> None:
    grey = [np.full((48, 96, 3), 8 * number, np.uint8) for number in range(30)]
    chunk = a_chunk(encoded(grey, options={"g": "10", "qp": "0"}))
    numbers = (14, 3, 29, 3)
    times_us = [CAPTURE_US + number * 40_000 + 15_000 for number in numbers]
    shown = {}
    for places, still in decode_stills(chunk, times_us, 48, ()):
        for place in places:
            shown[place] = float(still.mean())
    assert shown == {place: pytest.approx(8 * number, abs=6) for place, number in enumerate(numbers)}


def test_a_still_of_sound_is_refused(media: dict[str, bytes]) -> None:
    with pytest.raises(ChunkError, match="no picture"):
        decode_still(a_chunk(media["audio/wav"], "audio/wav"), CAPTURE_US, 100, ())


# --- hostile bytes -----------------------------------------------------------------------------------


def refused(payload: bytes, content_type: str, options: DecodeOptions = MOTION, **fields: Any) -> str:
    with pytest.raises(ChunkError) as caught:
        decode_chunk(a_chunk(payload, content_type, **fields), options)
    assert "yard" in str(caught.value)
    assert "media[0]@7" in str(caught.value)
    return caught.value.reason


def limited(**limits: Any) -> DecodeOptions:
    return replace(MOTION, limits=Limits(**limits))


def test_garbage_is_refused_whatever_it_is_called(media: dict[str, bytes]) -> None:
    garbage = np.random.default_rng(0).bytes(20_000)
    for content_type in media:
        assert refused(garbage, content_type) in REASONS
        assert refused(b"", content_type) in REASONS


def test_a_wrong_label_is_refused(media: dict[str, bytes]) -> None:
    for (is_of, payload), called in itertools.product(media.items(), media):
        if is_of != called:
            assert refused(payload, called) in {"malformed", "undecodable", "codec"}, (is_of, called)


@pytest.mark.parametrize("content_type", ["video/mp4", "image/png", "image/jpeg"])
def test_a_payload_that_is_cut_off_is_refused(media: dict[str, bytes], content_type: str) -> None:
    assert refused(media[content_type][: len(media[content_type]) // 2], content_type) in {"malformed", "undecodable"}


def test_a_cut_off_transport_stream_gives_what_is_there(media: dict[str, bytes]) -> None:
    whole = decode_chunk(a_chunk(media["video/mp2t"]), MOTION)
    half = decode_chunk(a_chunk(media["video/mp2t"][: len(media["video/mp2t"]) // 2]), MOTION)
    assert 4 < len(half.times_us) < len(whole.times_us)


def test_an_unknown_content_type_is_refused() -> None:
    assert refused(b"x", "text/plain") == "type"


def test_a_picture_bomb_is_refused_by_its_header() -> None:
    body = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    block = b"IHDR" + body
    head = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + block + struct.pack(">I", zlib.crc32(block))
    assert refused(head + zlib.compress(bytes(1_000)), "image/png") == "size"


def test_large_pictures_are_refused(media: dict[str, bytes]) -> None:
    for content_type in ("video/mp2t", "video/mp4", "image/png", "image/jpeg"):
        assert refused(media[content_type], content_type, limited(max_side_px=100)) in {"size", "malformed"}


def test_too_many_frames_are_refused(media: dict[str, bytes]) -> None:
    assert refused(media["video/mp2t"], "video/mp2t", limited(max_frames=99)) == "frames"


def test_too_many_streams_are_refused(media: dict[str, bytes]) -> None:
    assert refused(media["video/mp4"], "video/mp4", limited(max_streams=1)) in {"streams", "malformed"}


@pytest.mark.parametrize("content_type", ["video/mp2t", "audio/wav", "audio/ogg"])
def test_a_long_chunk_is_refused(media: dict[str, bytes], content_type: str) -> None:
    assert refused(media[content_type], content_type, limited(max_duration_s=1.5)) == "duration"


def test_a_jump_of_the_time_stamps_is_a_long_chunk() -> None:
    payload = encoded(noise_frames(4, 48, 64), pts=lambda number: number if number < 2 else 1_000_000)
    assert refused(payload, "video/mp2t") == "duration"


def test_a_chunk_that_decodes_slowly_is_refused(media: dict[str, bytes]) -> None:
    assert refused(media["video/mp2t"], "video/mp2t", limited(timeout_s=0.0)) == "slow"


def test_a_codec_outside_the_list_is_refused() -> None:
    payload = encoded(noise_frames(2, 48, 64), codec="ffv1", container="mp4", options={"strict": "-2"})
    assert refused(payload, "video/mp4") == "codec"


@pytest.mark.parametrize(
    "list_of_files", ["ffconcat version 1.0\nfile '{path}'\n", "#EXTM3U\n#EXTINF:4,\nfile://{path}\n"]
)
def test_a_list_that_names_a_local_file_does_not_open_it(
    media: dict[str, bytes], tmp_path: Path, list_of_files: str
) -> None:
    secret = tmp_path / "secret.ts"
    secret.write_bytes(media["video/mp2t"])
    text = list_of_files.format(path=secret).encode()
    # The file is good and would be read: FFmpeg does, when it may choose the demuxer and open what it likes.
    demuxer = "concat" if b"ffconcat" in text else "hls"
    loose = {"safe": "0"} if demuxer == "concat" else {"protocol_whitelist": "file"}
    with av.open(io.BytesIO(text), "r", format=demuxer, options=loose) as source:
        assert next(source.decode(video=0)).width == 160
    for content_type in media:
        assert refused(text, content_type) in REASONS


def test_a_producer_cannot_stretch_a_chunk_beyond_the_limit() -> None:
    decoded = decode_chunk(a_chunk(png_of(first_frame()), "image/png", duration_us=10**12), OPTIONS)
    assert decoded.end_us - decoded.start_us == 120_000_000


def decoded_or_reason(chunk: MediaChunk) -> Decoded | str:
    try:
        return decode_chunk(chunk, OPTIONS)
    except ChunkError as error:
        return error.reason


@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_the_bytes_only_chunk_errors_come_out(media: dict[str, bytes], data: st.DataObject) -> None:
    content_type = data.draw(st.sampled_from(sorted(media)))
    payload = bytearray(media[data.draw(st.sampled_from([content_type] * 4 + sorted(media)))])
    for _ in range(data.draw(st.integers(0, 8))):
        place = data.draw(st.integers(0, max(0, len(payload) - 1)))
        patch = data.draw(st.binary(min_size=1, max_size=8))
        kind = data.draw(st.sampled_from(["set", "set", "insert", "delete", "cut"]))
        if kind == "set":
            payload[place : place + len(patch)] = patch
        elif kind == "insert":
            payload[place:place] = patch
        elif kind == "delete":
            del payload[place : place + 200 * len(patch)]
        else:
            del payload[max(place, 400) :]
    chunk = a_chunk(bytes(payload), content_type)
    outcome = decoded_or_reason(chunk)
    if isinstance(outcome, str):
        assert outcome in REASONS
        return
    decoded = outcome
    assert decoded.pixels.shape == (len(decoded.times_us), 64, 64, 3)
    assert (np.diff(decoded.times_us) > 0).all()
    assert np.isfinite(decoded.samples).all()
    assert decoded.start_us < decoded.end_us <= CAPTURE_US + 121_000_000


@given(st.sampled_from(sorted({*SUFFIXES, "image/png", "image/jpeg"})), st.binary(max_size=2_000))
@settings(max_examples=150, deadline=None)
def test_arbitrary_bytes_give_a_chunk_error(content_type: str, payload: bytes) -> None:
    with pytest.raises(ChunkError):
        decode_chunk(a_chunk(payload, content_type), OPTIONS)
