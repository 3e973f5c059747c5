"""Effort from packet sizes alone."""

from streamer.activity import activity


def test_activity_is_what_an_ordinary_packet_weighs_against_a_keyframe() -> None:
    assert activity([10_000, 100, 300], [True, False, False]) == 0.02


def test_activity_of_nothing_but_keyframes_cannot_be_told() -> None:
    assert activity([10_000, 9_000], [True, True]) is None


def test_activity_without_a_keyframe_cannot_be_told() -> None:
    assert activity([10, 10], [False, False]) is None
