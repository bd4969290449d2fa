"""The progress bar of a preparation, on a terminal; a line about it now and then elsewhere."""

from collections.abc import Iterable
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Self

from data.articles import Corpus

if TYPE_CHECKING:
    from rich.console import RenderableType

LINE_EVERY_S = 60.0  # where there is no terminal


class TokenProgress:
    """Shows on stderr how much text was read, how many tokens that made, and the time left.

    A corpus that is cut by characters is read twice; the first time it is only counted.
    """

    def __init__(self, corpus: Corpus):
        # Imported late: a warm cache needs no bar, and starts a tenth of a second sooner.
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.table import Column

        look = self._look

        class Bar(Progress):
            """Looks at the corpus whenever it is drawn: nothing calls `add` while it is counted."""

            def get_renderables(self) -> "Iterable[RenderableType]":
                if self.tasks:
                    look()
                return super().get_renderables()

        self.corpus = corpus
        self._n_tokens = 0
        self._done = False
        self._last_line_s = monotonic()
        self._progress = Bar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            DownloadColumn(table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[n_tokens]:,} tokens"),
            TimeElapsedColumn(),
            TextColumn("<"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            speed_estimate_period=600,  # text from a network comes in bursts
        )
        first = "counting" if corpus.config.split == "characters" else "tokenising"
        self._progress.add_task(f"{first} {self._what}", total=None, n_tokens=0)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._done = error is None
        self._progress.stop()

    def add(self, n_tokens: int) -> None:
        """Count the tokens of one more block."""
        self._n_tokens += n_tokens

    @property
    def _what(self) -> str:
        config = self.corpus.config
        return (config.repo or config.source).rpartition("/")[2]

    def _look(self) -> None:
        """Take over what was read by now."""
        bar, n_bytes = self._progress, self.corpus.n_bytes
        task = bar.tasks[0]
        if n_bytes < task.completed:
            bar.reset(task.id, description=f"tokenising {self._what}")
        # The size that a source says beforehand may be no more than about right.
        limits = [self.corpus.config.max_bytes, self.corpus.source.n_bytes()]
        total = n_bytes if self._done else min((n for n in limits if n), default=None)
        bar.update(task.id, completed=n_bytes, total=total, n_tokens=self._n_tokens)
        if not bar.console.is_terminal and monotonic() - self._last_line_s > LINE_EVERY_S:
            self._last_line_s = monotonic()
            bar.console.print(bar.make_tasks_table(bar.tasks))
