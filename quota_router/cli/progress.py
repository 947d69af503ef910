"""
How far long work is.

Law: a bar on stderr, where a person sees it, and gone when the work is done; into a pipe or a file goes nothing.
Never: writes to stdout.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

Told = Callable[[int, int], None]
"""Told (done, to be done)."""


@contextmanager
def showing(*what: str, on_page: bool = True) -> Iterator[tuple[Told, ...]]:
    """
    Show one bar for each of *what*, one below the other as they begin.

    Args:
        what: is being done, as a short word.
        on_page: False where the answer itself goes to the same terminal.
    """
    is_shown = on_page and sys.stderr.isatty()
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not is_shown) as progress:
        yield tuple(_teller(progress, word) for word in what)


def _teller(progress: Progress, word: str) -> Told:
    task = progress.add_task(word, total=None, visible=False, start=False)

    def told(done: int, total: int) -> None:
        if not progress.tasks[task].started:
            progress.start_task(task)
        progress.update(task, completed=done, total=total, visible=True)

    return told
