"""The Hugging Face hub: a dataset at one commit, read as a stream by `datasets`.

`datasets` and `huggingface_hub` have their own time-outs and tries; here these have an end, are
seen on the terminal, and what fails in spite of them is told with its remedy.
"""

import logging
import re
import sys
from collections.abc import Iterator
from functools import cached_property
from queue import Full, Queue
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

from common.errors import UserError
from data.config import DataConfig
from data.sources import as_tables, quiet_datasets

if TYPE_CHECKING:
    from datasets import DatasetBuilder

TIMEOUT_S = 5.0  # for the first answer
# Each of `datasets`' tries is six of `huggingface_hub`'s: together some minutes. Its own number,
# 20, would wait half an hour for a hub that stalls.
MAX_TRIES = 5
JOIN_S = 60.0  # for the request under way where the text is long enough
READER = "hub-reader"  # the thread's name
_RETRY_LOGS = ("huggingface_hub.utils._http", "datasets.utils.file_utils")
_LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


class HubDataset:
    """What `data.repo`, `subset`, `revision` and `hub_split` name. Asks nothing before `load`."""

    def __init__(self, config: DataConfig):
        self.config = config
        self._n_bytes: int | None = None

    def n_bytes(self) -> int | None:
        """About how much text there is, by its card; None before `load`, or where none says it."""
        return self._n_bytes

    def load(self) -> Iterator[Any]:
        """Its records, as Arrow tables. What fails, here or in reading, `problem` explains."""
        _choose_logs()
        self._check()
        builder = self._builder
        known = (builder.info.splits or {}).get(self.config.hub_split)
        self._n_bytes = known.num_bytes if known else None
        return _ahead(as_tables(builder.as_streaming_dataset(self.config.hub_split)))

    @cached_property
    def _builder(self) -> "DatasetBuilder":
        config = self.config
        datasets = quiet_datasets()
        datasets.config.STREAMING_OPEN_MAX_RETRIES = MAX_TRIES
        datasets.config.STREAMING_READ_MAX_RETRIES = MAX_TRIES
        # By its full address: else a folder of that name, where one is, would be taken for it.
        address = f"hf://datasets/{config.repo}"
        builder = datasets.load_dataset_builder(address, config.subset, revision=config.revision)
        # Where the hub fails, `datasets` takes what it cached of the dataset, of whatever commit.
        if builder.hash != config.revision:
            raise ConnectionError("the hub failed while the dataset was looked up")
        return builder

    def _check(self) -> None:
        """Raise the hub's refusal, or TimeoutError within TIMEOUT_S where it doesn't answer.

        In a thread, since looking a host's name up can't be bounded otherwise; without this check
        `datasets` tries again for half a minute.
        """
        from huggingface_hub import HfApi

        problems: list[Exception] = [TimeoutError(f"no answer within {TIMEOUT_S:g} s")]

        def ask() -> None:
            try:
                HfApi().dataset_info(
                    self.config.repo or "", revision=self.config.revision, timeout=TIMEOUT_S
                )
                problems.clear()
            except Exception as error:
                problems[0] = error

        thread = Thread(target=ask, daemon=True)
        thread.start()
        thread.join(TIMEOUT_S)
        if problems:
            raise problems[0]

    def problem(self, error: Exception) -> str:
        """What went wrong, and its remedy."""
        from huggingface_hub import constants

        page = f"{constants.ENDPOINT}/datasets/{self.config.repo}"
        causes = list(_causes(error))
        for cause in causes:
            if told := self._refusal(cause, page):
                return told
        if links := [cause for cause in causes if _is_of_connection(cause)]:
            return (
                f"the hub can't be reached ({_first_line(links[-1])}); check the connection to "
                f"{constants.ENDPOINT} (HTTPS_PROXY is a proxy, HF_ENDPOINT a mirror), or use "
                "data=sample or data=files, which need none"
            )
        if type(error) is OSError or type(error).__module__.startswith("pyarrow"):
            return f"a file came damaged ({_first_line(error)}); run the same command again"
        return (
            f"{_first_line(error)}; data.subset={self.config.subset} and data.hub_split="
            f"{self.config.hub_split} must be among those at {page}"
        )

    def _refusal(self, cause: BaseException, page: str) -> str | None:
        """What the hub's own answer means, if `cause` is one."""
        from datasets.exceptions import DatasetNotFoundError
        from huggingface_hub import errors

        gated = f"it is gated; ask for access at {page}, then {_LOG_IN}"
        match cause:
            case errors.OfflineModeIsEnabled():
                return "HF_HUB_OFFLINE forbids to ask the hub for it; unset that"
            case errors.GatedRepoError():
                return gated
            case DatasetNotFoundError() if "is a gated dataset" in str(cause):
                return gated  # `datasets` drops its cause
            case errors.RepositoryNotFoundError():
                return (
                    "the hub has no such dataset, or a private one; check the name, which may "
                    f"have changed, at {page}, or {_LOG_IN}"
                )
            case errors.RevisionNotFoundError():
                return (
                    f"it has no commit data.revision={self.config.revision}; they are listed at "
                    f"{page}/commits/main"
                )
            case errors.HfHubHTTPError():
                code = cause.response.status_code
                if code in (401, 403):
                    return f"the hub answers {code}, no right to it; {_LOG_IN}"
                if code == 429:
                    return (
                        "the hub answers 429, too many requests; run the same command again in "
                        f"some minutes, or {_LOG_IN}, which allows more"
                    )
                if code >= 500:
                    return f"the hub answers {code}; run the same command again later"
        return None


def hub_dataset(config: DataConfig) -> HubDataset:
    """The dataset, where it is named as it must be."""
    if not config.repo or not re.fullmatch("[0-9a-f]{40}", config.revision or ""):
        raise UserError(
            f"data.revision={config.revision} of data.repo={config.repo} must be a full commit "
            "(40 hexadecimal digits): a branch may change under a comparison"
        )
    return HubDataset(config)


def _ahead(tables: Iterator[Any]) -> Iterator[Any]:
    """The tables, read by a thread, a few of them beforehand.

    So Ctrl-C is heard while a request waits: in the main thread Arrow would hold it back until the
    last try. A daemon, so as not to be waited for then; `cli.errors` looks for it by its name.
    """
    read: Queue[tuple[Any, Exception | None]] = Queue(2)
    closed = Event()

    def put(table: Any, error: Exception | None = None) -> None:
        while not closed.is_set():
            try:
                return read.put((table, error), timeout=0.1)
            except Full:
                continue

    def work() -> None:
        try:
            for table in tables:
                put(table)
                if closed.is_set():
                    return
            put(None)
        except Exception as error:
            put(None, error)

    thread = Thread(target=work, name=READER, daemon=True)
    thread.start()
    interrupted = False
    try:
        while (item := read.get())[0] is not None:
            yield item[0]
        if item[1] is not None:
            raise item[1]
    except KeyboardInterrupt:
        interrupted = True
        raise
    finally:
        closed.set()
        if not interrupted:
            thread.join(JOIN_S)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and those that it came of; `datasets` hides some by `from None`."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_of_connection(error: BaseException) -> bool:
    # A TransportError is of httpx or of its successor, as the installed huggingface_hub has it.
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"TransportError", "ConnectionError", "TimeoutError"})


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


class _Retries(logging.Handler):
    """Shows what the libraries log of a failed request and its next try, one short line each.

    By `sys.stderr` of that moment: a progress bar takes it over, and the line comes above the bar.
    """

    def emit(self, record: logging.LogRecord) -> None:
        message = re.sub(r"((GET|HEAD) )?https?://\S*/", "", record.getMessage().strip())
        print(f"hub: {message.splitlines()[0]}", file=sys.stderr)


def _choose_logs() -> None:
    for name in ("httpx", "httpx2"):  # they log every request
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in _RETRY_LOGS:
        logger = logging.getLogger(name)
        logger.handlers = [_Retries()]
        logger.setLevel(logging.WARNING)
        logger.propagate = False
