"""Messages for what is misspelt: what was meant, and what is valid there."""

from collections.abc import Iterable, Mapping
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import yaml

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
FOLDERS = ("row",)  # groups whose choices lie in folders: row=published/none
ALIKE = 0.6  # difflib's ratio from which a word may have been meant

RENAMED = {"sweep": "table", "experiment": "row"}
EXTRAS = {("hydra/launcher", "submitit_slurm"): "slurm"}  # launcher=slurm stands on it
# Words that a person may bring from elsewhere.
SYNONYMS = {
    "learning_rate": "optimizer.lr",
    "wd": "optimizer.weight_decay",
    "decay": "optimizer.weight_decay",
    "clip": "optimizer.grad_clip",
    "epochs": "steps",
    "epoch": "steps",
    "iters": "steps",
    "max_iters": "steps",
    "max_steps": "steps",
    "bs": "batch_size",
    "layers": "model.n_layer",
    "n_layers": "model.n_layer",
    "num_layers": "model.n_layer",
    "heads": "model.n_head",
    "n_heads": "model.n_head",
    "num_heads": "model.n_head",
    "d_model": "model.n_embd",
    "dim": "model.n_embd",
    "width": "model.n_embd",
    "hidden_size": "model.n_embd",
    "context": "model.block_size",
    "context_length": "model.block_size",
    "seq_len": "model.block_size",
    "vocab_size": "data.vocab_size",
    "vocab": "data.vocab_size",
    "warmup": "schedule.warmup_steps",
    "dataset": "data",
    "p": "dropout.p",
    "dropout_rate": "dropout.p",
    "wandb": "tracker",
    "logger": "tracker",
    "gpu": "device",
    "name": "row_name",
    "project": "tracker.project",
    "workers": "hydra.launcher.workers",
}


def unknown_choice(group: str, choice: str, choices: Iterable[str] = ()) -> str:
    """`dropout`, `standrd` -> the dropouts that there are."""
    if (group, choice) in EXTRAS:
        extra = EXTRAS[group, choice]
        return f"{group}={choice} needs what is not installed: pip install -e '.[{extra}]'"
    choices = list(choices) or choices_of(group)
    naming = f" To name a run of your own: {group}_name=NAME." if group in RENAMED.values() else ""
    return f"{group}={choice}: no such choice.{naming} {_valid(choice, choices)}"


def unknown_key(key: str, siblings: Iterable[str], root: Mapping[Any, Any] | None = None) -> str:
    """`model.n_layr` and what `model` has -> those keys; `root`, the config, is searched for it."""
    parent, _, name = key.rpartition(".") if "/" not in key else ("", "", key)
    valid = [sibling for sibling in siblings if not sibling.startswith("_")]
    if owners := _choices_with(parent, name):
        return f"{key}: no such key here. {name} belongs to {parent}={', '.join(owners)}"
    meant = None
    if not parent:
        valid += [group for group in groups() if "/" not in group and group not in valid]
        meant = SYNONYMS.get(name) or next(iter(_nested(root or {}, name)), None)
    return f"{key}: no such key or group. {_valid(name, valid, meant)}"


def renamed(key: str, arguments: Iterable[str]) -> str | None:
    """What a group's old name is now, with the argument as it should be."""
    if key not in RENAMED:
        return None
    new = RENAMED[key]
    given = [a.partition("=")[2] for a in arguments if a.lstrip("+~").startswith(f"{key}=")]
    return f"{key} is now {new}: {new}={given[0] if given else '...'}"


def choices_of(group: str) -> list[str]:
    """The names that `group=` takes."""
    files = (CONFIGS / group).glob("*/*.yaml" if group in FOLDERS else "*.yaml")
    return sorted(str(file.relative_to(CONFIGS / group))[: -len(".yaml")] for file in files)


def groups() -> list[str]:
    """All config groups, `dropout/slot` among them."""
    folders = {file.parent.relative_to(CONFIGS) for file in CONFIGS.glob("*/**/*.yaml")}
    return sorted(
        {folder.parts[0] if folder.parts[0] in FOLDERS else str(folder) for folder in folders}
    )


def _choices_with(group: str, key: str) -> list[str]:
    """The choices of a group whose files have the key at their top."""
    if not group or not (CONFIGS / group).is_dir():
        return []
    return [choice for choice in choices_of(group) if key in _top_keys(f"{group}/{choice}")]


def _top_keys(config: str) -> set[str]:
    file = CONFIGS / f"{config}.yaml"
    content = yaml.safe_load(file.read_text(encoding="utf-8")) if file.exists() else None
    content = content or {}
    parents = [entry for entry in content.get("defaults", []) if isinstance(entry, str)]
    folder = config.rpartition("/")[0]
    inherited = [_top_keys(f"{folder}/{parent}") for parent in parents if parent != "_self_"]
    return set(content).union(*inherited) - {"defaults"}


def _nested(node: Mapping[Any, Any], name: str, prefix: str = "") -> list[str]:
    """The keys of that name below `node`, the nearest to the root first."""
    here = [f"{prefix}{name}"] if name in node and prefix else []
    below = [
        key
        for child in node
        if isinstance(node[child], Mapping)
        for key in _nested(node[child], name, f"{prefix}{child}.")
    ]
    return here + sorted(below, key=lambda key: key.count("."))


def _valid(word: str, options: Iterable[str], meant: str | None = None) -> str:
    """The options in order, and the one that was meant, if any is like the word."""
    ordered = sorted(options)
    if not ordered:
        return "There is nothing to choose from."
    nearest = max(ordered, key=lambda option: _likeness(word, option))
    if meant is None and _likeness(word, nearest) >= ALIKE:
        meant = nearest
    asked = f"Did you mean {meant}?\n" if meant else ""
    return f"{asked}Valid: {', '.join(ordered)}"


def _likeness(a: str, b: str) -> float:
    return SequenceMatcher(None, a, b).ratio()
