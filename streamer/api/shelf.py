"""All prompts at hand: read once, then only what changed since, so that thousands are listed without delay."""

from dataclasses import replace

from streamer.prompt_store import Contents, PromptStore


class PromptShelf:
    """Always as new as Redis: each look asks for the count of changes. Safe to share between threads.

    Threads that look at the same moment may read the same changes twice; none waits for another.
    """

    def __init__(self, store: PromptStore) -> None:
        self._store = store
        self._held: Contents | None = None

    def contents(self) -> Contents:
        """Every prompt as it is now, by id in order.

        Raises:
            UnavailableError: Redis is away.
        """
        held = self._held
        if held is not None and held.serial == self._store.serial():
            return held
        newer = None if held is None else self._advanced(held)
        if newer is None:
            newer = self._store.load()
        self._held = newer
        return newer

    def _advanced(self, held: Contents) -> Contents | None:
        """With what the log says; None: some of it is missing there."""
        serial, log_id = held.serial, held.log_id
        changed: set[str] = set()
        while entries := self._store.read_log(log_id, None):
            for entry in entries:
                serial += 1
                if entry.serial != serial:
                    return None
                log_id = entry.log_id
                changed.add(entry.prompt_id)
        if not changed:
            return None
        prompts, damaged = self._store.fetch(sorted(changed))
        kept = {key: prompt for key, prompt in held.prompts.items() if key not in changed} | prompts
        spoilt = {key: reason for key, reason in held.damaged.items() if key not in changed} | damaged
        return replace(
            held,
            prompts={key: kept[key] for key in sorted(kept)},
            damaged=spoilt,
            serial=serial,
            log_id=log_id,
        )
