from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, cast

import av

from streamer.ingest.timeline import DRIFT_US, CaptureClock, Sample, Timeline

if TYPE_CHECKING:
    from av.packet import Packet

FRAME_US = 40_000


def a_packet(pts_us: int | None, dts_us: int | None = None, duration_us: int = FRAME_US) -> "Packet[Any]":
    packet: Packet[Any] = av.Packet(b"x")
    packet.time_base = Fraction(1, 1_000_000)
    packet.pts, packet.dts, packet.duration = pts_us, pts_us if dts_us is None else dts_us, duration_us
    return packet


def a_sample(pts_us: int, arrival_us: int) -> Sample:
    return Sample(a_packet(pts_us), True, pts_us, pts_us, FRAME_US, 0, arrival_us)


def placed(timeline: Timeline, *packets: "Packet[Any]") -> list[int]:
    samples = [timeline.place(packet, is_picture=True, arrival_us=0) for packet in packets]
    return [sample.pts_us for sample in samples if sample is not None]


def begun(at_us: int = 0, base_us: int | None = None) -> Timeline:
    timeline = Timeline()
    timeline.begin(at_us, base_us)
    return timeline


def test_media_time_starts_where_it_is_told_whatever_the_source_counts_from() -> None:
    assert placed(begun(7), a_packet(5_000_000), a_packet(5_040_000)) == [7, 40_007]
    assert placed(begun(0, base_us=4_900_000), a_packet(5_000_000)) == [100_000]


def test_a_step_back_or_a_leap_ahead_is_closed() -> None:
    packets = [a_packet(time) for time in (10**9, 10**9 + 40_000, 0, 40_000, 10**10)]
    assert placed(begun(), *packets) == [0, 40_000, 80_000, 120_000, 160_000]


@dataclass
class SoundPacket:
    """What the timeline reads of a packet: a real one's stream cannot be chosen."""

    pts: int
    dts: int
    stream_index: int = 1
    duration: int = FRAME_US
    size: int = 1
    time_base: Fraction = Fraction(1, 1_000_000)


def test_a_stream_that_begins_without_time_stamps_does_not_push_the_other_away() -> None:
    sound = cast("Packet[Any]", SoundPacket(10**12, 10**12))
    assert placed(begun(), a_packet(None), sound, a_packet(None)) == [0, 0, 40_000]


def test_a_gap_that_a_time_lapse_may_have_stays() -> None:
    assert placed(begun(), a_packet(0), a_packet(10_000_000), a_packet(20_000_000)) == [0, 10_000_000, 20_000_000]


def test_packets_without_time_stamps_follow_each_other() -> None:
    assert placed(begun(), a_packet(None), a_packet(None), a_packet(None)) == [0, 40_000, 80_000]


def test_decoding_times_always_rise_and_no_picture_is_shown_before_it_is_decoded() -> None:
    timeline = begun()
    stamps = [(0, 0), (120_000, 0), (40_000, -40_000), (80_000, 80_000)]
    samples = [timeline.place(a_packet(pts, dts), is_picture=True, arrival_us=0) for pts, dts in stamps]
    found = [sample for sample in samples if sample is not None]
    assert [sample.dts_us for sample in found] == sorted({sample.dts_us for sample in found})
    assert all(sample.pts_us >= sample.dts_us for sample in found)


def test_an_empty_packet_has_no_place() -> None:
    assert begun().place(av.Packet(), is_picture=True, arrival_us=0) is None


def test_a_source_without_a_clock_is_timed_by_arrival() -> None:
    timeline = Timeline(by_arrival=True)
    timeline.begin(0, None)
    samples = [timeline.place(a_packet(pts), is_picture=True, arrival_us=at) for pts, at in ((0, 1000), (1, 500_000))]
    assert [sample.pts_us for sample in samples if sample is not None] == [0, 499_000]


def test_a_burst_on_connecting_is_older_than_its_arrival() -> None:
    clock = CaptureClock(None)
    for pts_us, arrival_us in ((0, 1000), (1_000_000, 1001), (2_000_000, 1002), (3_000_000, 1_001_002)):
        clock.observe(a_sample(pts_us, 10**9 + arrival_us))
    clock.set_again()
    assert clock.capture_us(2_000_000) == 10**9 + 1002


def test_jitter_does_not_move_the_clock_and_drift_sets_it_again() -> None:
    clock = CaptureClock(None)
    clock.observe(a_sample(0, 10**9))
    assert not clock.set_again()
    clock.observe(a_sample(1_000_000, 10**9 + 1_300_000))
    assert not clock.set_again()
    assert clock.capture_us(1_000_000) == 10**9 + 1_000_000
    clock.observe(a_sample(2_000_000, 10**9 + 2_000_001 + DRIFT_US))
    assert clock.set_again()
    assert clock.capture_us(2_000_000) == 10**9 + 2_000_001 + DRIFT_US


def test_a_file_keeps_its_own_time_however_late_it_is_read() -> None:
    clock = CaptureClock(500)
    clock.observe(a_sample(0, 10**15))
    assert not clock.set_again()
    assert clock.capture_us(1_000_000) == 1_000_500
