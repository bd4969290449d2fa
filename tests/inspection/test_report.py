"""From a run's directory to its page."""

import json
import re
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import inspect_masks
from cli.config import register_schema
from inspection.report import all_sections
from inspection.subject import Subject, choose_module, load_subject
from model.gpt import GPT, GPTConfig
from tracking.checkpoint import save_checkpoint
from training.bundle import Bundle
from training.state import TrainState

ROOT = Path(__file__).parents[2]
CFG = {"dropout": {"name": "a dropout"}, "optimizer": {"lr": 0.01, "weight_decay": 0.1}}


def subject(model, machine, windows, module="block1/mlp_output", metrics=()) -> Subject:
    return Subject(
        run=Bundle(OmegaConf.create(CFG), machine, model),
        step=10,
        module=module,
        windows=windows,
        targets=windows.roll(-1, 1),
        passage=windows[:1],
        passage_text=[f" t{i}" for i in range(windows.size(1))],
        metrics=list(metrics),
    )


def test_a_learned_run_has_every_section(learned, machine, windows):
    metrics = [
        {"step": step}
        | {f"modules/block{i}/mlp_output/{m}/ones": 0.5 for i in (0, 1) for m in ("eval", "train")}
        for step in (0, 5, 10)
    ]
    sections = all_sections(subject(learned, machine, windows, metrics=metrics))
    titles = [section.title for section in sections]
    assert titles == [
        "Ones by token",
        "Ones over training",
        "Soft masks",
        "Two texts with one beginning",
        "Does the mask adapt to its input?",
        "Masks of a batch",
        "Expectation over many draws",
        "Gradients of dropped units",
    ]
    told = dict(zip(titles, (section.statement for section in sections), strict=True))
    assert " 0 differ: a mask never looks ahead" in told["Two texts with one beginning"]
    assert "exactly 0, yet in all of up to" in told["Gradients of dropped units"]
    assert all(section.pictures for section in sections)


def test_a_run_without_evaluations_has_no_history(learned, machine, windows):
    titles = [section.title for section in all_sections(subject(learned, machine, windows))]
    assert "Soft masks" in titles and "Ones over training" not in titles


def test_a_random_dropout_has_what_does_not_need_an_input(standard, machine, windows):
    sections = all_sections(subject(standard, machine, windows))
    assert [section.title for section in sections] == [
        "Masks of a batch",
        "Expectation over many draws",
        "Gradients of dropped units",
    ]
    off = re.search(r"mask × input is ([\d.]+)% off", sections[1].statement)
    assert off and 36 < float(off[1]) < 44  # p = 0.4
    assert "a gradient of exactly 0" in sections[2].statement
    assert sections[2].table[1][:2] == ("SGD", "0")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The directory of a tiny untrained run on the embedded sample."""
    register_schema()
    overrides = ["model.n_layer=1", "model.n_head=2", "model.n_embd=16", "model.block_size=16"]
    overrides += ["model.vocab_size=300", "data.vocab_size=300", "data.max_bytes=200000"]
    directory = tmp_path_factory.mktemp("learned")
    overrides += ["data.num_proc=1", f"data.cache_dir={directory}", "dropout=learned", "device=cpu"]
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        cfg = compose("train", overrides)
    OmegaConf.resolve(cfg)
    (directory / "config.yaml").write_text(OmegaConf.to_yaml(cfg))
    save_checkpoint(directory / "checkpoints", "best", TrainState.build(cfg))
    name = "modules/block0/mlp_output"
    line = {"step": 0, "eval/ones": 1.0, f"{name}/eval/ones": 1.0, f"{name}/train/ones": 1.0}
    (directory / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    return directory


def test_the_command_writes_one_page_and_its_pictures(run, monkeypatch, capsys):
    command = [
        "inspect_masks.py",
        "--run",
        str(run),
        "--windows",
        "8",
        "--text",
        "The city lies on",
    ]
    monkeypatch.setattr(sys, "argv", command)
    inspect_masks.main()
    page = run / "masks" / "index.html"
    assert capsys.readouterr().out.strip() == str(page)
    text = page.read_text()
    assert "Ones over training" in text and "block 0" in text
    assert "\u00a0" in text and "Th" in text
    pictures = {path.stem for path in (run / "masks").glob("*.svg")}
    assert {"batch", "expectation", "ones", "soft_masks", "shared_prefix"} <= pictures


def test_of_a_finished_wandb_run_it_says_how_to_send_the_page(learned, machine, windows, tmp_path):
    looked_at = subject(learned, machine, windows)
    tracker = {"project": "our own", "entity": None, "mode": "offline"}
    looked_at.cfg.tracker = tracker
    assert inspect_masks.sending(looked_at, tmp_path) == ""  # no record: it has not begun
    record = {"status": "finished", "code": {"commit": None, "files": {}}}
    (tmp_path / "record.json").write_text(json.dumps(record))
    assert inspect_masks.sending(looked_at, tmp_path) == (
        f"python -m tracking.send --run {tmp_path} --project 'our own' --mode offline"
    )
    looked_at.cfg.tracker = {"_target_": "tracking.trackers.NoTracker"}
    assert inspect_masks.sending(looked_at, tmp_path) == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"module": "block7/mlp_output"},
            "module=block7/mlp_output has no mask: take one of block0",
        ),
        ({"n_window": 1}, "windows=1 must be at least 2"),
        ({"text": ""}, "text='' has 0 tokens"),
        ({"which": "last"}, "has no last checkpoint"),
    ],
)
def test_what_cannot_be_looked_at_is_said(run, options, message):
    with pytest.raises(ValueError, match=message):
        load_subject(run, **options)


def test_a_run_without_masks_is_refused(machine, windows):
    model = GPT(GPTConfig(vocab_size=40, block_size=16, n_layer=1, n_head=2, n_embd=12))
    with pytest.raises(ValueError, match="no dropout with a mask to look at"):
        choose_module(model, windows, machine, None)
