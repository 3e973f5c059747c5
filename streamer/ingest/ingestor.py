"""Sources into Kafka: a thread per source reads and cuts, one thread sends."""

import threading
import time
from collections.abc import Mapping

import structlog

from streamer.errors import SourceError
from streamer.ingest.backoff import BackOff
from streamer.ingest.counters import SourceCounters, SourceFacts, State
from streamer.ingest.sender import Producer, Sender
from streamer.ingest.session import Session
from streamer.ingest.spec import SourceSpec
from streamer.ingest.spool import Spool
from streamer.settings import Settings

_log = structlog.get_logger(__name__)
_STEADY_S = 10.0  # a session that lasted this long ends the back-off
_SAY_DROPS_S = 10.0


class Ingestor:
    """Reads sources until they end or `stop` is called.

    What has an end waits for room when Kafka is slow; a camera goes on, and the oldest chunks in its spool give way.

    Args:
        sources: By stream id.
        settings: How they are cut, spooled and tried again.
        producer: Where chunks go; it stays open.
    """

    def __init__(self, sources: Mapping[str, SourceSpec], settings: Settings, producer: Producer) -> None:
        changed = threading.Condition()
        ingest = settings.ingest
        self._settings = settings
        self._counters = {name: SourceCounters(name, spec.shown) for name, spec in sources.items()}
        self._spools = {name: Spool(ingest.spool_max_bytes, changed) for name in sources}
        self._stop = threading.Event()
        self._is_started = False
        # Waited for instead of `Thread.join`: a join that Ctrl-C interrupts takes a running thread for ended.
        self._ended = {name: threading.Event() for name in sources}
        self._sender = Sender(producer, self._spools, self._counters, changed, self._backoff())
        self._threads = [
            threading.Thread(target=self._read, args=(name, spec), name=f"ingest-{name}", daemon=True)
            for name, spec in sources.items()
        ]

    def start(self) -> None:
        """Begin with all sources."""
        self._is_started = True
        self._sender.start()
        for thread in self._threads:
            thread.start()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until every source has ended and Kafka has everything; False if time ran out. Cameras do not end."""
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        if not all(ended.wait(_left(deadline_s)) for ended in self._ended.values()):
            return False
        return self._sender.drain(_left(deadline_s))

    def stop(self, timeout_s: float = 5.0) -> None:
        """End: what was read is sent as far as ``timeout_s`` allows, the rest counts as dropped."""
        deadline_s = time.monotonic() + timeout_s
        self._stop.set()
        if not self._is_started:
            return
        for ended in self._ended.values():
            ended.wait(_left(deadline_s))
        self._sender.drain(_left(deadline_s))
        self._sender.close()
        for name, spool in self._spools.items():
            self._counters[name].count_dropped(spool.clear())

    def facts(self) -> list[SourceFacts]:
        """The counters of every source, in the order given."""
        return [counters.facts() for counters in self._counters.values()]

    def _backoff(self) -> BackOff:
        return BackOff(self._settings.ingest.reconnect_initial_s, self._settings.ingest.reconnect_max_s)

    def _read(self, name: str, spec: SourceSpec) -> None:
        counters = self._counters[name]
        counters.enter("connecting")
        end: State = "failed"  # unless nothing unforeseen ends this thread
        try:
            end = self._read_until_end(name, spec)
        finally:
            counters.enter(end)
            self._ended[name].set()

    def _read_until_end(self, name: str, spec: SourceSpec) -> State:
        counters = self._counters[name]
        backoff = self._backoff()
        drops = _Drops(name, counters)
        while not self._stop.is_set():
            began_s = time.monotonic()
            session = Session(name, spec, self._settings, self._stop, drops.say)
            try:
                self._spool_all(name, session)
            except SourceError as error:
                counters.count_error(str(error))
                if session.is_finite or (session.is_finite is None and _is_local(spec)):
                    _log.error("source failed", stream=name, error=str(error))
                    return "failed"
                if time.monotonic() - began_s > _STEADY_S:
                    backoff.reset()
                self._wait_to_reconnect(name, error, backoff.next_s())
            else:
                break
        return "stopped" if self._stop.is_set() else "ended"

    def _wait_to_reconnect(self, name: str, error: SourceError, wait_s: float) -> None:
        if self._stop.is_set():
            return
        self._counters[name].enter("waiting")
        _log.warning("source lost", stream=name, error=str(error), again_in_s=round(wait_s, 2))
        if not self._stop.wait(wait_s):
            self._counters[name].count_reconnect()
            self._counters[name].enter("connecting")

    def _spool_all(self, name: str, session: Session) -> None:
        counters, spool = self._counters[name], self._spools[name]
        for chunk in session.chunks():
            counters.enter("reading")
            dropped = spool.put(chunk, may_wait=bool(session.is_finite), stop=self._stop)
            if dropped:
                counters.count_dropped(dropped)
            counters.set_spooled(spool.size_bytes)


class _Drops:
    """Counts what is left out, and says so now and then."""

    def __init__(self, name: str, counters: SourceCounters) -> None:
        self._name = name
        self._counters = counters
        self._said_s = -_SAY_DROPS_S

    def say(self, why: str) -> None:
        self._counters.count_dropped()
        if time.monotonic() - self._said_s >= _SAY_DROPS_S:
            self._said_s = time.monotonic()
            _log.warning("media left out", stream=self._name, why=why)


def _is_local(spec: SourceSpec) -> bool:
    return not spec.scheme and not spec.is_device


def _left(deadline_s: float | None) -> float | None:
    return None if deadline_s is None else max(0.0, deadline_s - time.monotonic())
