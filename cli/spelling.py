"""Messages for what is misspelt: what is valid there, the nearest first."""

from collections.abc import Iterable
from difflib import SequenceMatcher
from pathlib import Path

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
FOLDERS = ("row",)  # groups whose choices lie in folders: row=published/none
ALIKE = 0.6  # difflib's ratio from which a word may have been meant


def unknown_choice(group: str, choice: str, choices: Iterable[str] = ()) -> str:
    """`dropout`, `standrd` -> the dropouts that there are."""
    choices = list(choices) or choices_of(group)
    return f"{group}={choice}: no such choice. {_nearest_first(choice, choices)}"


def unknown_key(key: str, siblings: Iterable[str]) -> str:
    """`model.n_layr` and what `model` has -> those keys (at the root they include the groups)."""
    name = key if "/" in key else key.rpartition(".")[2]
    valid = [sibling for sibling in siblings if not sibling.startswith("_")]
    return f"{key}: no such key or group. {_nearest_first(name, valid)}"


def choices_of(group: str) -> list[str]:
    """The names that `group=` takes."""
    files = sorted((CONFIGS / group).glob("*/*.yaml" if group in FOLDERS else "*.yaml"))
    return [str(file.relative_to(CONFIGS / group).with_suffix("")) for file in files]


def groups() -> list[str]:
    """All config groups, `dropout/slot` among them."""
    folders = {file.parent.relative_to(CONFIGS) for file in CONFIGS.glob("*/**/*.yaml")}
    return sorted(
        {folder.parts[0] if folder.parts[0] in FOLDERS else str(folder) for folder in folders}
    )


def _nearest_first(word: str, options: Iterable[str]) -> str:
    ranked = sorted(options, key=lambda option: -_likeness(word, option))
    if not ranked:
        return "There is nothing to choose from."
    meant = f"Did you mean {ranked[0]}?\n" if _likeness(word, ranked[0]) >= ALIKE else ""
    return f"{meant}Valid: {', '.join(ranked)}"


def _likeness(a: str, b: str) -> float:
    return SequenceMatcher(None, a, b).ratio()
