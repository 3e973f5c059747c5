"""How workers learn of prompts: all at start, then each change as it is made."""

import threading
from collections.abc import Mapping

import structlog

from streamer.errors import UnavailableError
from streamer.prompt_store import Contents, PromptStore
from streamer.prompts import Prompt
from streamer.redis_client import Backoff

_log = structlog.get_logger(__name__)


class PromptFollower:
    """Keeps all prompts of a store at hand, in a thread of its own, through restarts of Redis.

    While Redis is away the last snapshot stands; once it is back everything is read again. Documents that cannot be
    read are left out, with one log line each. The thread blocks on one pooled connection of the store's client.

    Example:
        ``with PromptFollower(store) as follower: generation, prompts = follower.snapshot()``
    """

    def __init__(self, store: PromptStore, *, block_s: float = 1.0) -> None:
        """Follow a store once started.

        Args:
            store: Whose prompts.
            block_s: A read waits this long; also how soon `close` is through and a lost log is noticed.
        """
        timeout_s = store.redis.connection_pool.connection_kwargs.get("socket_timeout")
        self._store = store
        self._block_ms = max(1, int(1000 * min(block_s, timeout_s / 2 if timeout_s else block_s)))
        self._snapshot: tuple[int, tuple[Prompt, ...]] = (0, ())
        self._prompts: dict[str, Prompt] = {}
        self._damaged: dict[str, str] = {}
        self._is_connected = False
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="prompts", daemon=True)

    def __enter__(self) -> "PromptFollower":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Begin to follow; returns at once."""
        self._thread.start()

    def close(self) -> None:
        """Stop following; the last snapshot stays. Waits for the thread."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def is_connected(self) -> bool:
        """Whether the last exchange with Redis went well."""
        return self._is_connected

    def snapshot(self) -> tuple[int, tuple[Prompt, ...]]:
        """The generation and all prompts by id, disabled ones too. Takes no lock.

        The generation is 0 before the first load and grows whenever the prompts differ from the ones before.
        """
        return self._snapshot

    def wait_for(self, generation: int, timeout_s: float) -> bool:
        """Wait until a generation is reached; False: it was not in time."""
        with self._changed:
            return self._changed.wait_for(lambda: self._snapshot[0] >= generation, timeout_s)

    def _run(self) -> None:
        backoff = Backoff()
        was_told = False
        while not self._stop.is_set():
            try:
                contents = self._reload()
                if was_told:
                    _log.info("prompts are followed again", prompts=len(self._prompts))
                was_told = False
                backoff.reset()
                self._follow(contents.log_id, contents.serial)
            except UnavailableError as error:
                self._is_connected = False
                if not was_told:
                    _log.warning("prompts cannot be followed, the last ones stay in force", reason=str(error))
                was_told = True
                self._stop.wait(backoff.next_s())

    def _reload(self) -> Contents:
        contents = self._store.load()
        self._is_connected = True
        self._prompts = dict(contents.prompts)
        self._note_damage(contents.damaged)
        self._damaged = dict(contents.damaged)
        self._publish()
        return contents

    def _follow(self, log_id: str, serial: int) -> None:
        """Apply what the log says, until told to stop or until it turns out that entries are missing."""
        while not self._stop.is_set():
            entries = self._store.read_log(log_id, self._block_ms)
            if not entries and self._store.serial() != serial:
                return
            for entry in entries:
                serial += 1
                if entry.serial != serial:
                    return
                log_id = entry.log_id
            if entries:
                self._refresh({entry.prompt_id for entry in entries})

    def _refresh(self, prompt_ids: set[str]) -> None:
        prompts, damaged = self._store.fetch(sorted(prompt_ids))
        self._note_damage(damaged)
        for prompt_id in prompt_ids:
            self._prompts.pop(prompt_id, None)
            self._damaged.pop(prompt_id, None)
        self._prompts.update(prompts)
        self._damaged.update(damaged)
        self._publish()

    def _note_damage(self, damaged: Mapping[str, str]) -> None:
        for prompt_id, reason in damaged.items():
            if self._damaged.get(prompt_id) != reason:
                _log.warning("prompt left out, its document is damaged", prompt=prompt_id, reason=reason)

    def _publish(self) -> None:
        generation, before = self._snapshot
        prompts = tuple(self._prompts[prompt_id] for prompt_id in sorted(self._prompts))
        if generation and prompts == before:
            return
        with self._changed:
            self._snapshot = (generation + 1, prompts)
            self._changed.notify_all()
