"""The tree of errors, sorted by what the caller does about them."""

from collections.abc import Sequence

from models.errors import ContractError, ModelError, WatchwordError

__all__ = [
    "ChangedError",
    "ChunkError",
    "ContractError",
    "ExistsError",
    "FencedError",
    "MissingError",
    "ModelError",
    "PromptChangedError",
    "PromptError",
    "PromptExistsError",
    "PromptMissingError",
    "SettingsError",
    "SourceError",
    "UnavailableError",
    "UsageError",
    "WatchwordError",
]


class SettingsError(WatchwordError):
    """A setting is unknown, out of range or contradicts another: stop at start."""


class UsageError(WatchwordError):
    """A command was called wrongly: exit 2."""


class PromptError(WatchwordError):
    """A prompt document was refused; the version before it stays in force.

    Attributes:
        problems: One sentence for each key that was refused, where the message is about keys.
    """

    def __init__(self, message: str, problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)


class MissingError(WatchwordError):
    """There is no such thing."""


class ExistsError(WatchwordError):
    """The name is in use."""


class ChangedError(WatchwordError):
    """It is at another version than the caller thought: look at it again."""


class PromptMissingError(PromptError, MissingError):
    """There is no such prompt."""


class PromptExistsError(PromptError, ExistsError):
    """The id of a prompt is in use."""


class PromptChangedError(PromptError, ChangedError):
    """A prompt is at another version than the caller thought."""


class SourceError(WatchwordError):
    """A camera, file or folder cannot be opened or read."""


class ChunkError(WatchwordError):
    """A chunk cannot be used: count it, send it to the dead-letter topic, go on.

    Attributes:
        reason: One word of a closed set, for the metric's label.
    """

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class UnavailableError(WatchwordError):
    """A server is away: keep the place, back off, try again."""


class FencedError(WatchwordError):
    """Another worker owns the partition now: drop what is in flight for it, write nothing."""
