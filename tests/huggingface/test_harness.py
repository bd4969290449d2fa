"""A run under lm-evaluation-harness, on a task of two questions."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from data.prepare import REPOSITORY
from data.tokenizers import open_tokenizer
from evaluate import score_tasks
from tests.huggingface.conftest import logits_of
from training.sample import generate

pytest.importorskip("lm_eval", reason="the extra harness is not installed")
from huggingface.harness import RunLM

pytestmark = pytest.mark.filterwarnings("ignore")  # its packages warn

QUESTIONS = [
    {"text": "The river flows to the", "choices": [" sea", " moon"], "label": 0},
    {"text": "A" * 40, "choices": [" b", " c d"], "label": 1},
]
TASK = """\
task: rivers
dataset_path: json
dataset_kwargs: {{data_files: {file}}}
test_split: train
output_type: {kind}
doc_to_text: "{text}"
doc_to_target: "{target}"
"""
CHOICE = "doc_to_choice: choices\nmetric_list: [{metric: acc, aggregation: mean}]\n"
# As `python evaluate.py`, and at the end where the package `evaluate` lies.
AS_COMMAND = """
import runpy, sys
sys.argv.pop(0)
runpy.run_path("evaluate.py", run_name="__main__")
print(sys.modules["evaluate"].__file__)
"""


@pytest.fixture
def ask(tmp_path, monkeypatch):
    """A function from a run and a task's text to its results."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    questions = tmp_path / "questions.jsonl"
    questions.write_text("\n".join(map(json.dumps, QUESTIONS)))

    def ask(run, kind, target, more, text="{{text}}"):
        task = tmp_path / "task.yaml"
        task.write_text(TASK.format(file=questions, kind=kind, text=text, target=target) + more)
        args = argparse.Namespace(tasks=[str(task)], checkpoint="best", device="cpu")
        return score_tasks(run.directory, args)["tasks"]["rivers"]

    return ask


@torch.no_grad()
def loglikelihood(run, context, text):
    """By the definition, for texts that fit the block."""
    tokenizer = open_tokenizer(run.cfg.data.tokenizer, run.cfg.data.vocab_size)
    before, tokens = (torch.tensor(tokenizer.encode(t).tolist()) for t in (context, context + text))
    losses = F.cross_entropy(logits_of(run, tokens[None, :-1])[0], tokens[1:], reduction="none")
    return -losses[len(before) - 1 :].sum().item()


@pytest.mark.parametrize("dropout", ["none", "learned"])
def test_the_likelier_choice_is_the_answer(make_run, ask, dropout):
    run = make_run(f"dropout={dropout}", "dtype=float32", "model.block_size=64")
    pairs = [(q["text"], choice) for q in QUESTIONS for choice in q["choices"]]
    lm = RunLM(run)
    found = lm._loglikelihood_tokens([(None, *lm._encode_pair(*pair)) for pair in pairs])
    expected = [loglikelihood(run, *pair) for pair in pairs]
    assert [value for value, _ in found] == pytest.approx(expected, abs=1e-3)

    answers = [expected[0] < expected[1], expected[2] < expected[3]]
    right = sum(answer == q["label"] for answer, q in zip(answers, QUESTIONS, strict=True))
    assert ask(run, "multiple_choice", "label", CHOICE)["acc,none"] == right / 2


@torch.no_grad()
def test_a_text_longer_than_the_block_is_scored_in_windows(make_run):
    run = make_run("dropout=none", "dtype=float32", "data.tokenizer=bytes", "data.vocab_size=257")
    text = b"Thirty-two bytes make 2 windows."
    tokens = torch.tensor([256, *text])
    logits = logits_of(run, tokens[:32].view(2, 16)).flatten(0, 1)
    expected = -F.cross_entropy(logits, tokens[1:], reduction="sum").item()
    request = SimpleNamespace(args=(text.decode(),))
    assert RunLM(run).loglikelihood_rolling([request]) == [pytest.approx(expected, rel=1e-5)]
    with pytest.raises(ValueError, match="block_size is 16"):
        RunLM(run)._loglikelihood_tokens([(None, [1], [2] * 17)])


def test_an_answer_is_the_models_text_up_to_its_end(make_run, ask):
    run = make_run("dropout=none", "dtype=float32", "data.tokenizer=bytes", "data.vocab_size=257")
    tokens = generate(run.model, run.machine, [*b"The"], 8, temperature=0.0)
    text = open_tokenizer("bytes", 257).decode(tokens)
    lm = RunLM(run)
    for until, expected in ([], text), ([text[3]], text.partition(text[3])[0]):
        request = SimpleNamespace(args=("The", {"until": until, "max_gen_toks": 8}))
        assert lm.generate_until([request]) == [expected]


@pytest.mark.slow
def test_the_command_prints_the_results_and_hides_no_package_of_its_name(make_run, tmp_path):
    run = make_run("dropout=none", "dtype=float32", "model.block_size=64")
    questions, task = tmp_path / "questions.jsonl", tmp_path / "task.yaml"
    questions.write_text("\n".join(map(json.dumps, QUESTIONS)))
    place = {"file": questions, "kind": "multiple_choice", "text": "{{text}}", "target": "label"}
    task.write_text(TASK.format(**place) + CHOICE)
    arguments = ["evaluate.py", "--run", run.directory, "--checkpoint", "best", "--tasks", task]
    done = subprocess.run(
        [sys.executable, "-c", AS_COMMAND, *map(str, arguments)],
        cwd=REPOSITORY,
        env=os.environ | {"HF_HOME": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    result, package = done.stdout.rsplit("\n", 2)[:2]
    assert json.loads(result)["tasks"]["rivers"]["acc,none"] in (0, 0.5, 1)
    assert Path(package).name == "__init__.py"


def test_a_task_that_is_not_there_is_named(make_run):
    args = argparse.Namespace(tasks=["no.yaml"], checkpoint="best", device="cpu")
    with pytest.raises(ValueError, match=r"--tasks no\.yaml: no such file"):
        score_tasks(make_run("dropout=none").directory, args)
