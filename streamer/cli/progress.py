"""A bar on standard error, for commands that take minutes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def counted(doing: str) -> Iterator[Callable[[str, int, int], None]]:
    """Show how far work has come.

    Args:
        doing: What is done, in one word.

    Yields:
        To be called with what was done last, how much is done, and of how much; smaller again where new work begins.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[last]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(doing, total=None, last="")

        def show(last: str, done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, last=last)

        yield show
