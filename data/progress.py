"""The progress bar of a preparation, on a terminal; one line about it elsewhere."""

from types import TracebackType
from typing import Self

from data.articles import Corpus


class TokenProgress:
    """Shows how much text was read and how many tokens were made of it, on stderr."""

    def __init__(self, corpus: Corpus):
        # Imported late: a warm cache needs no bar, and starts a tenth of a second sooner.
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

        self.corpus = corpus
        self._progress = Progress(
            TextColumn("tokenising {task.description}"),
            BarColumn(),
            DownloadColumn(),
            TextColumn("{task.fields[n_tokens]:,} tokens"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
        )
        self._task = self._progress.add_task(
            corpus.config.source,
            total=corpus.config.max_bytes or corpus.source.n_bytes,
            n_tokens=0,
        )
        self._n_tokens = 0

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def add(self, n_tokens: int) -> None:
        """Count the tokens of one more block."""
        self._n_tokens += n_tokens
        self._progress.update(self._task, completed=self.corpus.n_bytes, n_tokens=self._n_tokens)
