"""How much moves in a chunk, told from the sizes of its packets before anything is decoded."""

from collections.abc import Sequence

from streamer.demux import PicturePacket
from streamer.types import Effort


def activity(sizes: Sequence[int], is_key: Sequence[bool]) -> float | None:
    """Bytes of an ordinary packet against those of a keyframe; more moves, more bytes.

    Args:
        sizes: Bytes of each picture packet, in decoding order.
        is_key: Whether it is a keyframe.

    Returns:
        A ratio, about 0.01 for a still scene and over 0.1 for a busy one; None where it cannot be told: no keyframe, or
        nothing but keyframes.
    """
    key = [size for size, flag in zip(sizes, is_key, strict=True) if flag]
    other = [size for size, flag in zip(sizes, is_key, strict=True) if not flag]
    if not key or not other:
        return None
    return (sum(other) / len(other)) / (sum(key) / len(key))


def choose_effort(packets: Sequence[PicturePacket], policy: str, threshold: float) -> Effort:
    """Keyframes alone, or the rate that motion needs. Depends on the chunk alone, so a replay decides the same.

    Args:
        packets: The picture packets of a chunk.
        policy: ``auto``, ``motion`` or ``keyframes``.
        threshold: Activity from which something moves.
    """
    if policy != "auto":
        return Effort.MOTION if policy == "motion" else Effort.KEYFRAMES
    measured = activity([packet.size for packet in packets], [packet.is_keyframe for packet in packets])
    return Effort.KEYFRAMES if measured is not None and measured < threshold else Effort.MOTION
