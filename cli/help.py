"""`python train.py --help`: the commands, the choices and the main values, in half a second."""

import sys
import textwrap
from collections import Counter
from collections.abc import Sequence

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from cli.parsing import parse
from cli.spelling import CONFIGS, choices_of, groups

PAGE = """\
Train a GPT with the dropouts of your choice, and compare.

  python train.py                                              # nano, learned dropout: minutes
  python train.py dropout=standard dropout.p=0.3
  python train.py -m dropout=none,standard,learned seed=1,2,3      # each a run of its own
  python train.py table=published seed=1,2,3                   # every row of a table
  python train.py row=published/learned                        # one row of it
  python train.py table_name=mine row_name=wide model.n_embd=256   # names of your own

The same command again goes on where it stopped, or finds the run finished.

Choices, GROUP=CHOICE:

{choices}

Values, KEY=VALUE, with what they are at scale={scale} dropout={dropout}:

{values}

All of them: python train.py --cfg job --resolve. Rows lie in configs/row, each table's list of them
in configs/table. What is misspelt is named, with what is valid.
A sweep (-m, table=) runs hydra.launcher.workers=N at a time. Hydra's own options: --hydra-help.
"""

VALUES = (
    ("seed", "steps", "batch_size", "micro_batch_size"),
    ("model.n_layer", "model.n_head", "model.n_embd", "model.block_size"),
    ("optimizer.lr", "optimizer.weight_decay", "schedule.warmup_steps"),
    ("eval_every", "save_every", "runs_dir", "device", "dtype", "compile"),
)


def asks_for_help() -> bool:
    return bool({"-h", "--help"} & set(sys.argv[1:]))


def print_help() -> None:
    """The page, with the values that the command line's overrides lead to."""
    given = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    overrides = [str(o.input_line) for o in parse(given) if not o.is_sweep_override()]
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = compose("train", overrides)
    values = "\n".join("  " + "  ".join(_value(cfg, key) for key in line) for line in VALUES)
    told = {"scale": cfg.scale, "dropout": cfg.dropout.name, "values": values}
    print(PAGE.format(choices=_choices(), **told), end="")


def _value(cfg: DictConfig, key: str) -> str:
    value = OmegaConf.select(cfg, key)
    return f"{key}={str(value).lower() if isinstance(value, bool) else value}"


def _listed(choices: Sequence[str]) -> list[str]:
    """The choices, and of those that lie in folders, as rows do, a folder and how many are in it."""
    folders = Counter(choice.rpartition("/")[0] for choice in choices)
    return [choice for choice in choices if "/" not in choice] + [
        f"{folder}/... ({n})" for folder, n in folders.items() if folder
    ]


def _choices() -> str:
    """Every group but Hydra's with its choices, one a paragraph."""
    names = [group for group in groups() if not group.startswith("hydra")]
    width = max(map(len, names)) + 4
    return "\n".join(
        textwrap.fill(
            ", ".join(_listed(choices_of(name))),
            width=100,
            initial_indent=f"  {name:<{width - 2}}",
            subsequent_indent=" " * width,
            break_on_hyphens=False,
        )
        for name in names
    )
