"""Standing prompts, ready for alignment: embedded off the batch loop, swapped in whole."""

import threading
from collections.abc import Callable, Sequence

import structlog

from streamer.align import PromptEmbedder, PromptSet
from streamer.errors import WatchwordError
from streamer.prompt_follower import PromptFollower
from streamer.prompts import Prompt

_log = structlog.get_logger(__name__)
_POLL_S = 0.2


class PromptSets:
    """Turns each generation of prompts into a `PromptSet`, on a thread of its own.

    Args:
        follower: Where prompts come from.
        embedder: Makes a set; slow where texts are new.
        on_change: Called with the ids of the enabled prompts, once they are in force.
    """

    def __init__(
        self, follower: PromptFollower, embedder: PromptEmbedder, *, on_change: Callable[[frozenset[str]], None]
    ) -> None:
        self._follower = follower
        self._embedder = embedder
        self._on_change = on_change
        self._current = embedder.embed(0, ())
        self._stopping = threading.Event()
        self.failure: BaseException | None = None
        self._doubted: set[tuple[str, int]] = set()
        self._thread = threading.Thread(target=self._run, name="prompt-sets", daemon=True)

    @property
    def current(self) -> PromptSet:
        """The newest set. Takes no lock."""
        return self._current

    @property
    def is_loaded(self) -> bool:
        """The prompts that stood in Redis are in force."""
        return self._current.generation > 0

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def close(self) -> None:
        """Stop following."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            self._follow()
        except BaseException as error:  # noqa: BLE001  # kept for the worker, which raises it
            self.failure = error

    def _follow(self) -> None:
        while not self._stopping.is_set():
            if not self._follower.wait_for(self._current.generation + 1, _POLL_S):
                continue
            generation, prompts = self._follower.snapshot()
            enabled = tuple(prompt for prompt in prompts if prompt.enabled)
            try:
                self._current = self._embedder.embed(generation, enabled)
            except WatchwordError as error:
                _log.error("prompts not embedded, the last ones stay in force", error=str(error))
                self._stopping.wait(1.0)
                continue
            self._doubt(enabled)
            self._on_change(frozenset(prompt.id for prompt in enabled))

    def _doubt(self, prompts: Sequence[Prompt]) -> None:
        """Log once what the author of a prompt should know."""
        new = [prompt for prompt in prompts if (prompt.id, prompt.version) not in self._doubted]
        for prompt_id, doubt in self._embedder.doubts(new).items():
            _log.warning("prompt in doubt", prompt=prompt_id, reason=doubt)
        self._doubted = {(prompt.id, prompt.version) for prompt in prompts}
