"""Whatever a run's own files hold: a result or one line and exit code 2, within a second."""

import json
import os
import random
import re
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from cli.config import register_schema
from cli.errors import explain
from common.errors import MISTAKEN, UserError
from tests.conftest import CONFIGS, TINY
from tests.mutations import mangle, mutate
from tracking import checkpoint
from tracking.checkpoint import FACTS, MANIFEST, latest_checkpoint, save_checkpoint
from tracking.directory import open_finished, open_run
from tracking.door import check_summary
from tracking.lines import read_lines
from tracking.load import load_run, read_base
from tracking.record import RunRecord
from tracking.report import print_summary
from tracking.show import events, show_again
from tracking.trackers import Event, NoTracker, TrackedRun
from training.state import TrainState

LIMIT_S = 1.0  # of computing, so that a busy machine fails no test; a wait is pytest's to end
MUTATIONS = 200
HASH = "a" * 64
KNOWN = {
    "code": {"commit": "abc", "dirty": False, "files": {}},
    "versions": {"python": "3"},
    "device": {"kind": "cpu", "name": "a CPU", "threads": 2},
    "dtype": "float32",
    "compile": False,
    "data": {"fingerprint": "text", "train_tokens": 1000},
    "parameters": 7,
    "parameters_trainable": 8,
    "flops_per_token": 9.0,
}
LOSSES: dict[str, float | torch.Tensor] = {
    **{"train/loss_nats": 3.0, "train/loss_stderr": 0.1, "train/ones": 0.4, "epoch": 2.0},
    **{"val/loss_nats": 3.5, "val/loss_stderr": 0.1, "eval/ones": 0.5, "tokens_per_s": 9.0},
}


class Listener:
    """A tracker that goes through all that it is told."""

    def track(self, run: TrackedRun, events: Iterable[Event]) -> None:
        list(events)


def go_on(root: Path, last: int = 3, whole: bool = True, fresh: bool = False) -> Path:
    """A run in small, from wherever its directory stands, or `fresh`; finished with `last=4`.

    Not `whole`, it does no more than read what is there.
    """
    config = {
        "seed": 3, "steps": 4, "eval_every": 2, "row_name": "none", "scale": "nano",
        "table_name": None, "runs_dir": str(root), "fresh": fresh,
    }  # fmt: skip
    with open_run(config, "text", dtype="float32", device_kind="cpu") as run:
        if run.status != "finished":
            first = 2 if run.status == "resume" else 0
            record = RunRecord(run, KNOWN, NoTracker(), first)
            if whole:
                train(record, first, last)
    if run.status == "finished":
        show(run.path, whole)
    return run.path


def train(record: RunRecord, first: int, last: int) -> None:
    with record:
        for step in range(first, last + 1):
            record.log(step, LOSSES)
        record.log_masks(last, {"block0/mlp_output": torch.linspace(0, 1, 20)})
        record.log_samples(last, ["once upon"])
        if last == 4:
            record.finish(4, LOSSES, 2, LOSSES)


def show(path: Path, whole: bool) -> None:
    """What is done with a finished run's files."""
    with open_finished(path) as run:
        record = run.read_record()
        check_summary(path, record)
        if whole:
            print_summary(run, record, [])
            show_again(run, Listener())


def result_or_line(make: Callable[[], object]) -> str:
    """What is said, nothing where there is a result."""
    began, said = time.process_time(), ""
    try:
        make()
    except UserError as error:
        told = explain(error)
        assert told is not None and told[1] == MISTAKEN, told
        said = told[0]
        assert "\n" not in said and len(said) < 2000, said
    assert time.process_time() - began < LIMIT_S, said
    return said


def changed(content: Any, draw: random.Random) -> bytes:
    if draw.random() < 0.7:
        return json.dumps(mutate(content, draw)).encode()
    return mangle(json.dumps(content), draw)


@pytest.mark.parametrize("last", [3, 4], ids=["interrupted", "finished"])
def test_a_mutated_record(tmp_path, last):
    draw = random.Random(last)
    path = go_on(tmp_path, last) / "record.json"
    record = json.loads(path.read_text())
    record |= {"test": {"final": {"test/loss_nats": 3.5}}} if last == 4 else {}
    for number in range(MUTATIONS // 2):
        path.write_bytes(changed(record, draw))
        result_or_line(lambda whole=number % 5 == 0: go_on(tmp_path, whole=whole))


@pytest.mark.parametrize("name", ["metrics.jsonl", "media.jsonl"])
def test_mutated_lines(tmp_path, name):
    draw = random.Random(name)
    path = go_on(tmp_path) / name
    record, text = (path.parent / "record.json").read_bytes(), path.read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    for number in range(MUTATIONS // 2):
        if draw.random() < 0.7:
            path.write_text("".join(json.dumps(line) + "\n" for line in mutate(lines, draw)))
        else:
            path.write_bytes(mangle(text, draw))
        result_or_line(lambda: list(events(read_lines(path))))
        if number % 5 == 0:
            (path.parent / "record.json").write_bytes(record)
            result_or_line(lambda: go_on(tmp_path))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> tuple[TrainState, Path]:
    """A tiny state, and a run's directory with its config and its checkpoints."""
    register_schema()
    with initialize_config_dir(CONFIGS, version_base="1.3"):
        cfg = compose("train", [*TINY, "device=cpu", "model.n_embd=8"])
    OmegaConf.resolve(cfg)
    directory, state = tmp_path_factory.mktemp("tiny") / "run", TrainState.build(cfg)
    directory.mkdir()
    OmegaConf.save(cfg, directory / "config.yaml")
    for kind in ("best", "last"):
        save_checkpoint(directory / "checkpoints", kind, state, HASH)
    return state, directory


@pytest.fixture
def run(tiny, tmp_path) -> tuple[TrainState, Path]:
    """The state, and a copy of the directory."""
    return tiny[0], shutil.copytree(tiny[1], tmp_path / "run")


def as_yaml(content: Any) -> str:
    """JSON is YAML, but for 9e-05, which must be 9.0e-05 there."""
    return re.sub(r"\b(\d+)e([+-])", r"\1.0e\2", json.dumps(content))


def test_a_mutated_config(run):
    (state, directory), draw = run, random.Random(1)
    path = directory / "config.yaml"
    config, text = OmegaConf.to_container(state.cfg), path.read_text()
    start = OmegaConf.create({"init_from": str(directory)})
    for number in range(MUTATIONS):
        if draw.random() < 0.7:
            path.write_text(as_yaml(mutate(config, draw)))
        else:
            path.write_bytes(mangle(text, draw))
        result_or_line(lambda: load_run(directory, device="cpu"))
        if number % 20 == 0:
            result_or_line(lambda: read_base(start))


def test_mutated_facts(run):
    (state, directory), draw = run, random.Random(1)
    path = directory / "checkpoints" / "last-00000000"
    facts = json.loads((path / FACTS).read_text())

    def load() -> None:
        state.load(latest_checkpoint(path.parent, HASH))

    for _ in range(MUTATIONS):
        forge(path, changed(facts, draw))
        result_or_line(load)


def forge(path: Path, facts: bytes) -> None:
    """Other facts, and a manifest that agrees: a stranger would."""
    (path / FACTS).write_bytes(facts)
    (path / MANIFEST).write_bytes(checkpoint._manifest(path))


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"progress": 7}, "`progress` is an integer, it must be an object"),
        ({"progress": None}, "`progress` is null, it must be an object"),
        ({"progress": {"step": 0, "worst": 1}}, "'progress.worst' is not a key of a progress"),
        ({"progress": {"step": 0, "best_val_loss_nats": "x"}}, "best_val_loss_nats` is a string"),
        ({"step": False}, "`step` is true or false, it must be an integer"),
        ({"run": "x\ny"}, r"run='x\\ny' must be 64 hexadecimal digits"),
    ],
)
def test_facts_that_no_training_goes_on_from_are_named(run, facts, said):
    path = run[1] / "checkpoints" / "last-00000000"
    whole = json.loads((path / FACTS).read_text())
    forge(path, json.dumps(whole | facts).encode())
    with pytest.raises(UserError, match=rf"facts\.json: .*{said}.*fresh=true"):
        latest_checkpoint(path.parent, HASH)
    del whole["progress"]
    forge(path, json.dumps(whole).encode())
    with pytest.raises(UserError, match=r"`progress` is missing.*fresh=true"):
        latest_checkpoint(path.parent, HASH)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"n_layer": 10**8}, "must be smaller: weights need"),
        ({"n_layer": 3}, r"model.n_layer=3 must be 2: .*best-00000000 has as many layers"),
        ({"n_layer": "x"}, "model.n_layer=x must be a whole number"),
        ({"mlp_ratio": 400.0}, r"the model of .* parameters must be that of .*, which has"),
        ({"mlp_ratio": 10**300}, "must be smaller: weights need"),
    ],
)
def test_a_model_that_its_weights_are_not_of_is_not_built(run, changes, said):
    state, directory = run
    config: Any = OmegaConf.to_container(state.cfg)
    config["model"] |= changes
    (directory / "config.yaml").write_text(as_yaml(config))
    told = result_or_line(lambda: load_run(directory, device="cpu"))
    assert re.search(rf"config.yaml cannot be used: .*{said}", told), told


def test_a_config_without_a_model_is_named(run):
    state, directory = run
    OmegaConf.save({k: v for k, v in state.cfg.items() if k != "model"}, directory / "config.yaml")
    with pytest.raises(UserError, match=r"cannot be used: model\.\w+ has no value"):
        load_run(directory)


def test_a_run_that_moved_from_a_place_that_is_none_here_is_loaded(run):
    state, directory = run
    (directory / "file").touch()
    moved = {"runs_dir": str(directory / "file" / "runs")}
    OmegaConf.save(OmegaConf.merge(state.cfg, moved), directory / "config.yaml")
    assert load_run(directory, device="cpu").checkpoint.step == 0


@pytest.mark.parametrize("last", [3, 4], ids=["interrupted", "finished"])
@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.write_bytes(b"\xff")])
@pytest.mark.parametrize(
    "name", ["record.json", "nonce", "metrics.jsonl", "media.jsonl", "log.txt"]
)
def test_what_is_no_file_or_no_text_is_a_line_and_fresh_gets_past_it(tmp_path, name, make, last):
    path = go_on(tmp_path, last) / name
    path.unlink()
    make(path)
    said = result_or_line(lambda: go_on(tmp_path))
    if said:
        assert str(path) in said
        assert any(remedy in said for remedy in ("fresh=true", "remove it", "move it away"))
    if "fresh=true" in said:
        assert go_on(tmp_path, 4, fresh=True) == path.parent


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"status": 7}, "status=7 must be one of 'running'"),
        ({"time_s": "x"}, "`time_s` is a string, it must be a number"),
        ({"time_s": None}, "`time_s` is null, it must be a number"),
        ({"starts": 7}, "`starts` is an integer, it must be a list"),
        ({"code": {"commit": "a\nb", "files": {}}}, r"code.commit='a\\nb' must be"),
        ({"code": {"commit": None, "files": {"../../x.py": "1"}}}, "below the repository's root"),
        ({"started": "\ud800"}, "surrogates not allowed"),
    ],
)
def test_a_record_that_no_run_wrote_is_named_by_its_entry(tmp_path, changes, said):
    path = go_on(tmp_path) / "record.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(UserError, match=rf"record.json is not a run's record .*{said}.*fresh=true"):
        go_on(tmp_path)


@pytest.mark.parametrize("lacks", ["run_hash", "config", "steps", "best", "device"])
def test_a_finished_record_that_lacks_who_it_is_of_is_a_line(tmp_path, lacks):
    path = go_on(tmp_path, 4) / "record.json"
    record = json.loads(path.read_text())
    del record[lacks]
    path.write_text(json.dumps(record))
    with pytest.raises(UserError, match=f"`{lacks}` is missing: a finished record must have it"):
        open_finished(path.parent)


@pytest.mark.parametrize("content", [b"\xff", b"", b"../../x\n../../y", b"ABCDEF01", b"1" * 200])
def test_a_nonce_that_no_run_wrote_never_names_a_run(tmp_path, content):
    path = go_on(tmp_path) / "nonce"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"nonce is not a run's nonce .*remove it"):
        go_on(tmp_path)
    path.unlink()
    go_on(tmp_path)
