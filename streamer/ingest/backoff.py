"""How long to wait before the next try."""

import random


class BackOff:
    """Doubles from one try to the next, up to a limit; a random part keeps many sources from coming back at once.

    Args:
        initial_s: Longest first wait.
        max_s: Longest wait.
        draw: Gives numbers from 0 to 1.
    """

    def __init__(self, initial_s: float, max_s: float, draw: "random.Random | None" = None) -> None:
        self._initial_s = initial_s
        self._max_s = max_s
        self._draw = draw or random.Random()  # noqa: S311  # spreads load, guards nothing
        self._tries = 0

    def next_s(self) -> float:
        """The next wait, between half and all of its limit."""
        limit_s = min(self._max_s, self._initial_s * 2.0 ** min(self._tries, 60))
        self._tries += 1
        return limit_s * (0.5 + 0.5 * self._draw.random())

    def reset(self) -> None:
        """It works again."""
        self._tries = 0
