"""Which streams of a source travel together, and in what."""

from typing import Final

from av.stream import Stream

from streamer.ingest.cut import MP4, MPEGTS, WAV, Cutter, Form, Limits, OnDrop, RemuxCutter
from streamer.ingest.encode import PictureEncoder, SoundEncoder
from streamer.ingest.opening import Opened

_PICTURE: Final = {
    **dict.fromkeys(("h264", "hevc", "mpeg2video", "mpeg4"), MPEGTS),
    **dict.fromkeys(("mjpeg", "vp9", "av1"), MP4),
}
_SOUND_BESIDE: Final = {
    MPEGTS.muxer: frozenset({"aac", "mp2", "mp3", "ac3", "eac3", "opus"}),
    MP4.muxer: frozenset({"aac", "mp3", "ac3", "eac3", "opus", "flac"}),
}
_WAV: Final = frozenset(f"pcm_{form}" for form in ("u8", "s16le", "s24le", "s32le", "f32le", "f64le", "alaw", "mulaw"))


def plan_cutters(opened: Opened, limits: Limits, on_drop: OnDrop) -> dict[int, Cutter]:
    """Stream index to the cutter that takes its packets.

    Copied wherever a container of the contract carries the codec. Sound goes with the picture if it can, else as
    messages of its own. Sound without a picture is sent as PCM or FLAC: cut compressed sound clicks at every cut.
    """
    cutters: dict[int, Cutter] = {}
    form: Form | None = None
    beside: Stream | None = None
    if opened.picture is not None:
        form = _PICTURE.get(_codec(opened.picture))
        if form is MPEGTS and opened.is_rotated:
            form = MP4  # MPEG-TS has no place for the rotation
        if form is not None and opened.sound is not None and _codec(opened.sound) in _SOUND_BESIDE[form.muxer]:
            beside = opened.sound
        if form is None:
            cutters[opened.picture.index] = PictureEncoder(opened.picture, limits, on_drop)
        else:
            cutters[opened.picture.index] = RemuxCutter(form, opened.picture, beside, limits, on_drop)
    if opened.sound is not None:
        if beside is not None and opened.picture is not None:
            cutters[opened.sound.index] = cutters[opened.picture.index]
        elif _codec(opened.sound) in _WAV:
            cutters[opened.sound.index] = RemuxCutter(WAV, None, opened.sound, limits, on_drop)
        else:
            cutters[opened.sound.index] = SoundEncoder(opened.sound, limits, on_drop)
    return cutters


def _codec(stream: Stream) -> str:
    return str(stream.codec_context.codec.canonical_name)
