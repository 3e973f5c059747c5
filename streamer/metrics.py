"""What Prometheus sees. Every name is a promise to dashboards and alerts."""

import threading

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

OTHER = "other"
_MAX_REASONS = 64  # the labels that come from closed sets; a mistake there must not grow without end
_SHORT_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_LATENCY_S = (0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.5, 10.0, 30.0, 60.0, 300.0)
_WINDOW_LATENCY_S = (
    *(0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    *(1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8, 1.9, 2.0, 2.2, 2.5, 3.0, 4.0, 5.0, 7.5, 10.0, 30.0),
)
_ERRORS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class BoundedLabel:
    """Label values, first come, first served, up to a limit; the rest is `OTHER`."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: set[str] = set()
        self._lock = threading.Lock()

    def __call__(self, value: str) -> str:
        """The value, or `OTHER`."""
        if value in self._known:
            return value
        with self._lock:
            if value in self._known or len(self._known) < self._limit:
                self._known.add(value)
                return value
        return OTHER

    def release(self, value: str) -> bool:
        """Make room again; False where the value had none."""
        with self._lock:
            if value not in self._known:
                return False
            self._known.remove(value)
            return True


class Metrics:
    """Counters, gauges and histograms of one worker; safe to call from any thread.

    A gauge per stream or prompt is not kept for what is counted under `OTHER`: of several values there is no one.

    Args:
        registry: Where they are registered; a process has one.
        max_streams: Stream labels before `OTHER`.
        max_prompts: Prompt labels before `OTHER`.
    """

    def __init__(self, registry: CollectorRegistry, *, max_streams: int = 256, max_prompts: int = 256) -> None:
        self._stream = BoundedLabel(max_streams)
        self._prompt = BoundedLabel(max_prompts)
        self._reason = BoundedLabel(_MAX_REASONS)
        self._confident: set[tuple[str, str]] = set()  # (stream, prompt) that have a confidence now
        self._confident_lock = threading.Lock()

        def counter(name: str, about: str, *labels: str) -> Counter:
            return Counter(f"watchword_{name}", about, labels, registry=registry)

        def gauge(name: str, about: str, *labels: str) -> Gauge:
            return Gauge(f"watchword_{name}", about, labels, registry=registry)

        def histogram(name: str, about: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"watchword_{name}", about, labels, buckets=buckets, registry=registry)

        self._frames_decoded = counter("frames_decoded_total", "Pictures decoded.", "stream")
        self._frames_skipped = counter("frames_skipped_total", "Pictures not looked at, and why.", "stream", "reason")
        self._chunks = counter("chunks_total", "Chunks by what became of them.", "stream", "result")
        self._windows = counter("windows_total", "Windows cut.", "stream")
        self._batch_size = histogram("batch_size", "Windows in a batch.", _SIZES)
        self._batch_wait = histogram("batch_wait_seconds", "How long a batch's oldest window waited.", _SHORT_S)
        self._stage = histogram("stage_seconds", "Time in a stage, a chunk or a batch.", _SHORT_S, "stage")
        self._queue_depth = gauge("queue_depth", "What waits in a queue.", "queue")
        self._lag = gauge("kafka_lag", "Messages not yet read.", "topic", "partition")
        self._last_frame = gauge(
            "stream_last_frame_timestamp_seconds", "Capture time of the newest picture or sound.", "stream"
        )
        self._gaps = counter("stream_gaps_total", "Chunks that a stream's counter says are missing.", "stream")
        self._events = counter("events_total", "State changes of events.", "prompt", "severity", "state")
        self._confidence = gauge(
            "prompt_confidence", "Latest confidence, where over half the threshold.", "stream", "prompt"
        )
        self._event_latency = histogram("event_latency_seconds", "Capture to commit.", _LATENCY_S)
        self._window_latency = histogram(
            "window_latency_seconds", "Capture of a window's last sample until it was tracked.", _WINDOW_LATENCY_S
        )
        self._reuse_error = histogram(
            "reuse_confidence_error", "Change of confidence by reusing a still frame's tokens, worst prompt.", _ERRORS
        )
        self._commit = histogram("commit_seconds", "One atomic commit to Redis.", _SHORT_S)
        self._dead_letters = counter("dead_letters_total", "Chunks in the dead-letter topic.", "reason")
        self._redis_up = gauge("redis_up", "1 while Redis answers.")
        self._kafka_up = gauge("kafka_up", "1 while Kafka answers.")
        self._model = gauge("model_info", "1 for each model in use.", "name", "sha256", "device")
        self._device_memory = gauge("device_memory_bytes", "Memory in use on the inference device.")
        self._device_busy = gauge("device_busy_ratio", "Share of time in which the inference device computed.")
        self._prompts_active = gauge("prompts_active", "Prompts that are enabled.")

    def decoded(self, stream: str, frames: int) -> None:
        """Pictures were decoded."""
        self._frames_decoded.labels(self._stream(stream)).inc(frames)

    def skipped(self, stream: str, reason: str, frames: int) -> None:
        """Pictures were not looked at."""
        self._frames_skipped.labels(self._stream(stream), self._reason(reason)).inc(frames)

    def chunk(self, stream: str, result: str, count: int = 1) -> None:
        """Chunks came to their end."""
        self._chunks.labels(self._stream(stream), self._reason(result)).inc(count)

    def windows(self, stream: str, count: int = 1) -> None:
        """Windows were cut."""
        self._windows.labels(self._stream(stream)).inc(count)

    def batch(self, windows: int, waited_s: float) -> None:
        """A batch was made."""
        self._batch_size.observe(windows)
        self._batch_wait.observe(waited_s)

    def stage(self, stage: str, seconds: float) -> None:
        """A stage did its part."""
        self._stage.labels(self._reason(stage)).observe(seconds)

    def queue_depth(self, queue: str, depth: int) -> None:
        """How much waits."""
        self._queue_depth.labels(self._reason(queue)).set(depth)

    def lag(self, topic: str, partition: int, messages: int) -> None:
        """How far behind the end of a partition."""
        self._lag.labels(topic, str(partition)).set(messages)

    def forget_partition(self, topic: str, partition: int) -> None:
        """Another worker has it now: its lag is not ours to tell."""
        self._lag.remove_by_labels({"topic": topic, "partition": str(partition)})

    def last_frame(self, stream: str, captured_s: float) -> None:
        """Capture time of a stream's newest media, seconds since 1970 UTC."""
        label = self._stream(stream)
        if label != OTHER:
            self._last_frame.labels(label).set(captured_s)

    def gap(self, stream: str, chunks: int = 1) -> None:
        """Chunks are missing."""
        self._gaps.labels(self._stream(stream)).inc(chunks)

    def event(self, prompt: str, severity: str, state: str) -> None:
        """An event opened, changed or closed."""
        self._events.labels(self._prompt(prompt), severity, state).inc()

    def confidence(self, stream: str, prompt: str, confidence: float, threshold: float) -> None:
        """A prompt's confidence in a stream; kept only while at least half the threshold."""
        is_worth_it = confidence >= threshold / 2
        if not is_worth_it and (stream, prompt) not in self._confident:
            return  # nearly all of 10,000 prompts, each second, for each stream
        labels = (self._stream(stream), self._prompt(prompt))
        if OTHER in labels:
            return
        with self._confident_lock:
            if is_worth_it:
                self._confident.add(labels)
                self._confidence.labels(*labels).set(confidence)
            elif labels in self._confident:
                self._confident.remove(labels)
                self._confidence.remove(*labels)

    def event_latency(self, seconds: float) -> None:
        """Capture to commit, of one event."""
        self._event_latency.observe(seconds)

    def window_latency(self, seconds: float) -> None:
        """From the capture of a window's last sample until it was tracked."""
        self._window_latency.observe(seconds)

    def reuse_error(self, difference: float) -> None:
        """What reuse of tokens changed in one audited frame."""
        self._reuse_error.observe(difference)

    def commit(self, seconds: float) -> None:
        """A commit to Redis."""
        self._commit.observe(seconds)

    def dead_letter(self, reason: str) -> None:
        """A chunk went to the dead-letter topic."""
        self._dead_letters.labels(self._reason(reason)).inc()

    def redis_up(self, *, is_up: bool) -> None:
        """Redis answers, or does not."""
        self._redis_up.set(is_up)

    def kafka_up(self, *, is_up: bool) -> None:
        """Kafka answers, or does not."""
        self._kafka_up.set(is_up)

    def model(self, name: str, sha256: str, device: str) -> None:
        """A model is in use."""
        self._model.labels(name, sha256, device).set(1)

    def device(self, memory_bytes: float, busy_ratio: float) -> None:
        """State of the inference device."""
        self._device_memory.set(memory_bytes)
        self._device_busy.set(busy_ratio)

    def prompts_active(self, count: int) -> None:
        """Prompts that are enabled."""
        self._prompts_active.set(count)

    def forget_stream(self, stream: str) -> None:
        """Drop the series of a stream that is gone for good and give its label to the next."""
        if not self._stream.release(stream):
            return
        for family in (
            *(self._frames_decoded, self._frames_skipped, self._chunks, self._windows),
            *(self._last_frame, self._gaps, self._confidence),
        ):
            family.remove_by_labels({"stream": stream})
        with self._confident_lock:
            self._confident = {pair for pair in self._confident if pair[0] != stream}

    def forget_prompt(self, prompt: str) -> None:
        """Drop the series of a prompt that was removed and give its label to the next."""
        if not self._prompt.release(prompt):
            return
        for family in (self._events, self._confidence):
            family.remove_by_labels({"prompt": prompt})
        with self._confident_lock:
            self._confident = {pair for pair in self._confident if pair[1] != prompt}
