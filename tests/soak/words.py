"""Hostile command lines: those of a list, values and misspelt keys by chance."""

import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf

from cli.config import register_schema
from tests.soak.runs import ROOT, RUN, TINY, Nursery
from tests.soak.tally import TAKEN, WRONG, Tally, refusal, wait_at_most

VALUES = (
    *("null", "true", "-1", "0", "7", "0.5", "1e308", "-1e308", "1e-320", "nan", "inf", "-inf"),
    *("''", "x", "[]", "{}", "[1,2]", "{a:{b:1}}", "../../x", "x" * 300, "'<script>'", "1" * 31),
    *("'a b'", "${oc.env:HOME}", "${nowhere}"),
)
# Left alone: places (a value is a directory that would be made), and what takes a minute.
PLACES = ("runs_dir", "data.cache_dir", "compile", "tracker", "hydra")
LONG = {("steps", "1" * 31)}  # a run of so many steps is a wish that can be begun

# Command lines, and what has to be said of each.
LINES = {
    "row=published/learned dropout=none": "row|dropout",
    "table=published dropout=none": "row|dropout",
    "table=/etc/x": "table",
    "table=../../x": "table",
    "row=..": "row",
    "row_name=..": "row_name",
    "row_name=a/b": "row_name",
    "table_name=../../x": "table_name",
    "scale=/etc/passwd": "scale",
    "dropout=../../x": "dropout",
    "+dropout.pp=0.3": "pp",
    "+evil=1": "evil",
    "schedule.min_lr=10": "min_lr",
    "optimizer.lr=1e12 schedule.warmup_steps=0 eval_every=1": "not finite|step",
    "batch_size=1000000000000 micro_batch_size=7": "micro_batch_size|batch_size",
    "model.n_layer=10000000": "n_layer|memory",
    "model.n_embd=100000000": "n_embd|memory",
    "model.mlp_ratio=0.001": "mlp_ratio|hidden",
    "model.vocab_size=2": "vocab",
    "runs_dir=/dev/null": "/dev/null",
    "dropout.mlp_output._target_=os.system": "_target_",
    "optimizer._target_=subprocess.Popen": "_target_",
    "hydra.launcher._target_=os.system": "hydra|launcher",
    "+hydra.callbacks.x._target_=os.system": "hydra|callbacks",
    "learning_rate=1": "optimizer.lr",
    "dropout.p=0.2": "p",
    "data.paths=/dev/zero": "/dev/zero",
    "data.paths=[]": "paths",
    "init_from=/etc": "init_from|config.yaml",
    "seed=1,2": "seed",
    "steps": "steps",
    "=": "=",
    "--nonsense": "nonsense",
}


def keys() -> list[str]:
    """Every key of the config that a person can set."""
    register_schema()
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        cfg = compose("train", overrides=[*TINY, "data.paths=x"])
    return [key for key in _leaves(OmegaConf.to_container(cfg)) if not key.startswith(PLACES)]


def _leaves(node: Any, at: str = "") -> Iterator[str]:
    for key, value in node.items():
        path = f"{at}.{key}" if at else key
        if isinstance(value, dict) and value:
            yield from _leaves(value, path)
        else:
            yield path


def words(nursery: Nursery, place: Path, chance: random.Random, tries: int, tally: Tally) -> None:
    """Command lines: those of the list, then values and misspelt keys by chance."""
    for n, (line, names) in enumerate(LINES.items()):
        process = nursery.start(place / f"line{n}", *line.split(" "))
        outcome = refusal(wait_at_most(process), process.said, names) or WRONG
        tally.add("command lines of the list", outcome, line, process.said)
    every = keys()
    for n in range(tries):
        key, value = chance.choice(every), chance.choice(VALUES)
        if (key, value) not in LONG:
            try_value(nursery, place / f"value{n}", key, value, tally)
        key = chance.choice(every)
        wrong = chance.choice((f"{key}x=1", f"+{key}x=1", f"{key[:-1]}=1", f"x{key}=1"))
        process = nursery.start(place / f"key{n}", "steps=1", wrong)
        parts = map(re.escape, wrong.partition("=")[0].lstrip("+").split("."))
        outcome = refusal(wait_at_most(process), process.said, "|".join(parts)) or WRONG
        tally.add("misspelt keys", outcome, wrong, process.said)
        shutil.rmtree(place, ignore_errors=True)


def try_value(nursery: Nursery, place: Path, key: str, value: str, tally: Tally) -> None:
    """A value is refused by its key's name, or stands in the config of the run that was made."""
    process = nursery.start(place, "steps=2", f"{key}={value}")
    last = re.escape(key.rpartition(".")[2])
    outcome = refusal(wait_at_most(process), process.said, f"{last}|not finite")
    if outcome is None:
        configs = list(place.glob(f"{RUN}/config.yaml"))
        taken = len(configs) == 1 and _stands(configs[0], key, value)
        outcome = TAKEN if taken else WRONG
    tally.add("values", outcome, f"{key}={value}", process.said)


def _stands(config: Path, key: str, value: str) -> bool:
    found = OmegaConf.select(OmegaConf.load(config), key)
    try:
        wanted = OverridesParser.create().parse_override(f"{key}={value}").value()
    except HydraException:
        return False
    if OmegaConf.is_config(found):
        found = OmegaConf.to_container(found)
    if isinstance(found, int | float) and isinstance(wanted, int | float):
        return float(found) == float(wanted)
    return str(found) == str(wanted).strip("'")
