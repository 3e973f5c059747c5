"""Samples as Prometheus would read them."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from streamer.metrics import OTHER, BoundedLabel, Metrics

NAMES = {  # name: its labels, as dashboards and alerts know them
    "frames_decoded_total": {"stream"},
    "frames_skipped_total": {"stream", "reason"},
    "chunks_total": {"stream", "result"},
    "windows_total": {"stream"},
    "batch_size_count": set(),
    "batch_wait_seconds_count": set(),
    "stage_seconds_count": {"stage"},
    "queue_depth": {"queue"},
    "kafka_lag": {"topic", "partition"},
    "stream_last_frame_timestamp_seconds": {"stream"},
    "stream_gaps_total": {"stream"},
    "events_total": {"prompt", "severity", "state"},
    "prompt_confidence": {"stream", "prompt"},
    "event_latency_seconds_count": set(),
    "commit_seconds_count": set(),
    "dead_letters_total": {"reason"},
    "redis_up": set(),
    "kafka_up": set(),
    "model_info": {"name", "sha256", "device"},
    "device_memory_bytes": set(),
    "device_busy_ratio": set(),
    "prompts_active": set(),
}


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def samples(registry: CollectorRegistry, name: str) -> dict[tuple[str, ...], float]:
    return {
        tuple(sample.labels.values()): sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == f"watchword_{name}"
    }


def use_all(metrics: Metrics) -> None:
    metrics.decoded("dock-3", 8)
    metrics.skipped("dock-3", "quiet", 17)
    metrics.chunk("dock-3", "decoded")
    metrics.windows("dock-3")
    metrics.batch(16, 0.02)
    metrics.stage("encode", 0.02)
    metrics.queue_depth("decode", 3)
    metrics.lag("watchword.media", 4, 12)
    metrics.last_frame("dock-3", 1_700_000_000.5)
    metrics.gap("dock-3", 2)
    metrics.event("fire-yard", "critical", "open")
    metrics.confidence("dock-3", "fire-yard", 0.7, threshold=0.5)
    metrics.event_latency(1.4)
    metrics.commit(0.001)
    metrics.dead_letter("truncated")
    metrics.redis_up(is_up=True)
    metrics.kafka_up(is_up=False)
    metrics.model("compact", "ab12", "cpu")
    metrics.device(1e9, 0.5)
    metrics.prompts_active(3)


def test_every_metric_has_the_name_and_the_labels_that_dashboards_rely_on(registry: CollectorRegistry) -> None:
    use_all(Metrics(registry))
    found = {sample.name: set(sample.labels) for family in registry.collect() for sample in family.samples}
    assert {name: found.get(f"watchword_{name}") for name in NAMES} == NAMES


def test_values_arrive_as_given(registry: CollectorRegistry) -> None:
    use_all(Metrics(registry))
    assert samples(registry, "frames_skipped_total") == {("dock-3", "quiet"): 17}
    assert samples(registry, "kafka_lag") == {("watchword.media", "4"): 12}
    assert samples(registry, "stream_last_frame_timestamp_seconds") == {("dock-3",): 1_700_000_000.5}
    assert samples(registry, "batch_size_sum") == {(): 16}
    assert samples(registry, "redis_up") == {(): 1}
    assert samples(registry, "kafka_up") == {(): 0}


def test_a_stream_over_the_cap_is_counted_as_other_and_nothing_is_lost(registry: CollectorRegistry) -> None:
    metrics = Metrics(registry, max_streams=3)
    for number in range(10):
        metrics.decoded(f"cam-{number}", 1)
    metrics.decoded("cam-0", 1)
    assert samples(registry, "frames_decoded_total") == {("cam-0",): 2, ("cam-1",): 1, ("cam-2",): 1, (OTHER,): 7}


def test_a_prompt_over_the_cap_is_counted_as_other(registry: CollectorRegistry) -> None:
    metrics = Metrics(registry, max_prompts=1)
    metrics.event("fire", "critical", "open")
    metrics.event("smoke", "critical", "open")
    metrics.event("flood", "critical", "open")
    assert samples(registry, "events_total") == {("fire", "critical", "open"): 1, (OTHER, "critical", "open"): 2}


def test_gauges_are_not_mixed_under_other(registry: CollectorRegistry) -> None:
    metrics = Metrics(registry, max_streams=1)
    for number in range(3):
        metrics.last_frame(f"cam-{number}", number)
        metrics.confidence(f"cam-{number}", "fire", 0.9, threshold=0.5)
    assert samples(registry, "stream_last_frame_timestamp_seconds") == {("cam-0",): 0}
    assert samples(registry, "prompt_confidence") == {("cam-0", "fire"): 0.9}


def test_a_confidence_shows_from_half_the_threshold_and_goes_when_it_falls(registry: CollectorRegistry) -> None:
    metrics = Metrics(registry)
    metrics.confidence("dock-3", "fire", 0.29, threshold=0.6)
    assert samples(registry, "prompt_confidence") == {}
    metrics.confidence("dock-3", "fire", 0.3, threshold=0.6)
    assert samples(registry, "prompt_confidence") == {("dock-3", "fire"): 0.3}
    metrics.confidence("dock-3", "fire", 0.1, threshold=0.6)
    assert samples(registry, "prompt_confidence") == {}


def test_a_forgotten_stream_leaves_no_series_and_its_place_is_free(registry: CollectorRegistry) -> None:
    metrics = Metrics(registry, max_streams=1)
    use_all(metrics)
    metrics.forget_stream("dock-3")
    left = [s for family in registry.collect() for s in family.samples if s.labels.get("stream")]
    assert left == []
    metrics.decoded("dock-4", 1)
    assert samples(registry, "frames_decoded_total") == {("dock-4",): 1}


def test_a_forgotten_prompt_leaves_no_series_and_its_place_is_free(registry: CollectorRegistry) -> None:
    metrics = Metrics(registry, max_prompts=1)
    use_all(metrics)
    metrics.forget_prompt("fire-yard")
    assert [s for family in registry.collect() for s in family.samples if s.labels.get("prompt")] == []
    metrics.event("smoke", "info", "open")
    assert samples(registry, "events_total") == {("smoke", "info", "open"): 1}


def test_a_partition_that_moved_away_has_no_lag_here(registry: CollectorRegistry) -> None:
    metrics = Metrics(registry)
    metrics.lag("watchword.media", 4, 12)
    metrics.lag("watchword.media", 5, 1)
    metrics.forget_partition("watchword.media", 4)
    assert samples(registry, "kafka_lag") == {("watchword.media", "5"): 1}


def test_a_latency_around_the_promise_of_two_seconds_is_told_apart(registry: CollectorRegistry) -> None:
    metrics = Metrics(registry)
    for seconds in (1.4, 1.9, 2.4):
        metrics.event_latency(seconds)
    buckets = samples(registry, "event_latency_seconds_bucket")
    assert [buckets[(bound,)] for bound in ("1.0", "1.5", "2.0", "2.5")] == [0, 1, 2, 3]


@given(limit=st.integers(0, 5), values=st.lists(st.sampled_from([f"v{n}" for n in range(12)]), max_size=60))
def test_a_label_has_at_most_its_limit_of_values_and_keeps_the_first(limit: int, values: list[str]) -> None:
    label = BoundedLabel(limit)
    given = [label(value) for value in values]
    first = list(dict.fromkeys(values))[:limit]
    assert given == [value if value in first else OTHER for value in values]


def test_ten_thousand_prompts_of_no_interest_cost_little(registry: CollectorRegistry) -> None:
    metrics = Metrics(registry)
    started_s = time.perf_counter()
    for number in range(10_000):
        metrics.confidence("dock-3", f"prompt-{number}", 0.01, threshold=0.5)
    assert time.perf_counter() - started_s < 0.5
    assert samples(registry, "prompt_confidence") == {}
