"""A run under lm-evaluation-harness: what its tasks ask of a model, by the run's own code."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from lm_eval import simple_evaluate
from lm_eval.api.model import TemplateLM
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from torch import Tensor

from common.errors import UserError
from data.tokenizers import open_tokenizer
from tracking.load import LoadedRun
from training.sample import generate

MAX_TOKENS = 64  # of an answer, where the task does not say


def evaluate_tasks(run: LoadedRun, tasks: Sequence[str]) -> dict[str, Any]:
    """The harness's results by task; a task is a YAML file, or a name that the harness knows.

    ValueError where it is neither.
    """
    files = [task for task in tasks if task.endswith(".yaml")]
    manager = TaskManager(include_defaults=len(files) < len(tasks))
    for task in tasks:
        if not (Path(task).is_file() if task in files else manager.match_tasks([task])):
            raise UserError(f"--tasks {task}: no such file, and no task of the harness")
    done = simple_evaluate(
        RunLM(run),
        tasks=[load_yaml(task) if task in files else task for task in tasks],
        task_manager=manager,
        log_samples=False,
        bootstrap_iters=0,
    )
    return dict(done["results"])


class RunLM(TemplateLM):
    """The harness's contract of a model: log-likelihoods of texts, and text itself."""

    def __init__(self, run: LoadedRun) -> None:
        super().__init__()
        self.run = run
        self.encoding = open_tokenizer(run.cfg.data.tokenizer, run.cfg.data.vocab_size)
        self.block_size = run.model.cfg.block_size

    @property
    def eot_token_id(self) -> int:
        return self.encoding.end_of_text

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[int]:
        return [int(token) for token in self.encoding.encode(string)]

    def _loglikelihood_tokens(
        self, requests: list[tuple[Any, list[int], list[int]]], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        return list(self._score([(context, text) for _, context, text in requests]))

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
        """Of whole texts, in disjoint windows, each token given those before it in its window."""
        sums = []
        for request in requests:
            windows = get_rolling_token_windows(
                self.tok_encode(request.args[0]), self.eot_token_id, self.block_size, context_len=1
            )
            scored = self._score([make_disjoint_window(window) for window in windows])
            sums.append(sum(loglikelihood for loglikelihood, _ in scored))
        return sums

    def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
        return [self._write(*request.args) for request in requests]

    @torch.no_grad()
    def _score(self, pairs: Sequence[tuple[list[int], list[int]]]) -> Iterator[tuple[float, bool]]:
        """For (context, text): the text's log-likelihood, and whether it is the likeliest.

        Of a long context the end counts. Batches are padded behind the texts, which no token sees.
        """
        size = self.run.cfg.evaluate.batch_size
        for start in range(0, len(pairs), size):
            batch = [self._cut(context, text) for context, text in pairs[start : start + size]]
            longest = max(len(tokens) for tokens, _ in batch)
            rows = [tokens + [self.eot_token_id] * (longest - len(tokens)) for tokens, _ in batch]
            windows = torch.tensor(rows, device=self.run.machine.device)
            with self.run.machine.autocast():
                hidden = self.run.model(windows[:, :-1]).hidden
            for row, (tokens, n_text) in enumerate(batch):
                text = slice(len(tokens) - 1 - n_text, len(tokens) - 1)
                yield self._loglikelihood(hidden[row, text], windows[row, 1:][text])

    def _cut(self, context: list[int], text: list[int]) -> tuple[list[int], int]:
        """What the model sees, with the text's last token, and the text's length."""
        if len(text) > self.block_size:
            raise UserError(
                f"a task scores a text of {len(text)} tokens at once, and the run's block_size is "
                f"{self.block_size}: shorten the task's answers, or take a run of a larger block"
            )
        return (context + text)[-self.block_size - 1 :], len(text)

    def _loglikelihood(self, hidden: Tensor, targets: Tensor) -> tuple[float, bool]:
        with self.run.machine.autocast():
            logits = self.run.model.logits(hidden).float()
        chosen = logits.log_softmax(-1).gather(-1, targets[:, None])
        return chosen.sum().item(), bool((logits.argmax(-1) == targets).all())

    def _write(self, context: str, options: dict[str, Any]) -> str:
        ends = options.get("until") or []
        text = self.encoding.decode(
            generate(
                self.run.model,
                self.run.machine,
                self.tok_encode(context) or [self.eot_token_id],
                options.get("max_gen_toks", MAX_TOKENS),
                temperature=options.get("temperature", 0.0) if options.get("do_sample") else 0.0,
                top_k=None,
            )
        )
        for end in [ends] if isinstance(ends, str) else ends:
            text = text.partition(end)[0]
        return text
