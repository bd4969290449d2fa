"""`python -m tests.mutation [MODULE...]`: which changes to a module would no test notice?

mutmut changes one thing at a time in a module (a sign, a bound, an argument, a name) and runs the
tests that mirror it. A change that they let pass is either listed in `equivalent.yaml` with why no
test can tell it, or is an open one, and a law is missing. Each module has a copy of the tree of its
own in `.cache/mutation`; run again, what was killed there stays killed while its function is the
same, and the rest is tried anew. The figures go to `results/mutation.json`, the page to
`results/mutation.md`.
"""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from mutmut.configuration import reset_config
from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.stats import status_by_exit_code
from mutmut.utils.format_utils import orig_function_and_class_names_from_key

ROOT = Path(__file__).resolve().parents[2]
TREES = ROOT / ".cache" / "mutation"
FIGURES, PAGE = ROOT / "results" / "mutation.json", ROOT / "results" / "mutation.md"
EQUIVALENT = Path(__file__).with_name("equivalent.yaml")

MODULES = {
    "experiments": "statistics mixing",
    "data": "articles",
    "training": "schedule step evaluate",
    "tracking": "directory",
    "ops": "attention build gelu head learned_mask linear masking native random rotary",
    "dropout": "alpha base by_layer channel checks classic detached drop_path feature_alpha fourier "
    "head layer_group learned learned_static masked multiplicative none penalties rounding standard "
    "token",
}
# Tests that cannot be run on changed code: mutmut's wrappers do not trace, and in another process
# they do not know which change is meant. And one that compiles every kernel, for each change anew.
LEFT_OUT = {
    "ops/masking.py": "it_traces_as_torchs_own",
    "ops/native.py": "compiled_once_into_the_cache",
    "tracking/directory.py": "no_permission_is_a_clear_error or one_process_at_a_time",
}
# The kind whose tests are those of a file that makes none.
KINDS = {"base": "channel", "masked": "channel"}
PYTEST = ("-n0", "-p", "tests.mutation.quick", "--hypothesis-profile=mutation")
# Suspicious: ended by another signal, as by glibc's abort where memory was written over.
KILLED = {"killed", "segfault", "suspicious", "timeout"}


@dataclass(frozen=True)
class Change:
    """One mutant: the function that it is in, and its lines before and after."""

    function: str
    was: str
    becomes: str


def modules() -> list[str]:
    return [f"{room}/{name}.py" for room, names in MODULES.items() for name in names.split()]


def tests_of(module: str) -> tuple[str, ...]:
    """What mirrors the module, as arguments of pytest."""
    room, name = module.removesuffix(".py").split("/")
    if room == "dropout":
        kind = KINDS.get(name, name)
        return f"tests/dropout/test_{kind}.py", "tests/dropout/test_laws.py", f"-k={kind}"
    left_out = [f"-k=not ({LEFT_OUT[module]})"] if module in LEFT_OUT else []
    return f"tests/{room}/test_{name}.py", *left_out


def run(module: str) -> dict[str, Any]:
    """Try each change to the module, and return its figures."""
    tree = TREES / module.removesuffix(".py").replace("/", ".")
    verdicts = tree / "mutants" / f"{module}.meta"
    before = verdicts.read_text() if verdicts.exists() else None
    _copy(module, tree)
    if before is not None:
        verdicts.parent.mkdir(parents=True)
        verdicts.write_text(_without_survivors(before))
    # A cache of its own, so that a changed module never leaves a library where others load it.
    environment = os.environ | {"XDG_CACHE_HOME": str(TREES / "cache")}
    command = [str(Path(sys.executable).with_name("mutmut")), "run", "--max-children", "1"]
    subprocess.run(command, cwd=tree, env=environment, check=True)
    codes = json.loads(verdicts.read_text())["exit_code_by_key"]
    statuses = {name: status_by_exit_code[code] for name, code in codes.items()}
    with contextlib.chdir(tree):
        reset_config()
        survivors = [_change(n, module) for n, status in statuses.items() if status not in KILLED]
    return {
        "commit": _git("rev-parse", "HEAD"),
        "mutants": len(statuses),
        "by_status": dict(sorted(Counter(statuses.values()).items())),
        "survivors": [vars(change) for change in survivors],
    }


def _without_survivors(verdicts: str) -> str:
    """What a test killed stays killed; the rest is tried again, for there may be a new test."""
    known = json.loads(verdicts)
    codes = known["exit_code_by_key"]
    kept = {n: code if status_by_exit_code[code] in KILLED else None for n, code in codes.items()}
    return json.dumps(known | {"exit_code_by_key": kept})


def _copy(module: str, tree: Path) -> None:
    shutil.rmtree(tree, ignore_errors=True)
    names = _git("ls-files", "--cached", "--others", "--exclude-standard").splitlines()
    for name in names:
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name)
    options = {
        "source_paths": [module],
        "also_copy": sorted({name.partition("/")[0] for name in names}),
        "pytest_add_cli_args": list(PYTEST),
        "pytest_add_cli_args_test_selection": list(tests_of(module)),
        "process_isolation": "forkserver",  # torch's threads do not survive a fork
    }
    with (tree / "pyproject.toml").open("a") as file:
        file.write("\n[tool.mutmut]\n")
        file.writelines(f"{key} = {json.dumps(value)}\n" for key, value in options.items())


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _change(name: str, module: str) -> Change:
    """What mutmut changed, without the lines around it."""
    function, of = orig_function_and_class_names_from_key(name)
    lines = get_diff_for_mutant(name, path=Path(module)).splitlines()[2:]

    def side(sign: str) -> str:
        return "\n".join(line[1:].strip() for line in lines if line.startswith(sign))

    return Change(f"{of}.{function}" if of else function, side("-"), side("+"))


def split(module: str, figures: dict[str, Any]) -> tuple[dict[Change, str], list[Change]]:
    """The survivors that are listed, each with its reason, and the open ones."""
    listed = {
        Change(entry["function"], entry["was"], change): entry["why"]
        for entry in (yaml.safe_load(EQUIVALENT.read_text()) or {}).get(module, [])
        for change in entry["becomes"]
    }
    survivors = [Change(**survivor) for survivor in figures["survivors"]]
    return (
        {change: listed[change] for change in survivors if change in listed},
        [change for change in survivors if change not in listed],
    )


def page(known: dict[str, Any]) -> str:
    """The table, the reasons, and what is open or has not been run."""
    return "\n".join(_page(known)) + "\n"


def _page(known: dict[str, Any]) -> Iterator[str]:
    yield "# Mutation tests\n"
    yield "What the tests notice when one thing in a module is changed: `make mutation`, or"
    yield "`python -m tests.mutation MODULE...`, with mutmut and the tests that mirror the module. The"
    yield "score is the share of killed and timed out in all but the equivalent; a change has timed out"
    yield "where its tests take fifteen times as long. mutmut changes functions: neither decorated ones"
    yield "(a property, the backward pass of a kernel) nor a module's constants. `slow` and GPU tests"
    yield "have no part in it.\n"
    yield "| module | mutants | killed | timed out | equivalent | open | score | commit |"
    yield "|---|--:|--:|--:|--:|--:|--:|---|"
    of = {module: split(module, known[module]) for module in modules() if module in known}
    for module, (equivalent, unlisted) in of.items():
        yield _row(module, known[module], len(equivalent), len(unlisted))
    if missing := [f"`{module}`" for module in modules() if module not in known]:
        yield f"\nNot run yet: {', '.join(missing)}."
    yield "\n## Equivalent\n"
    yield "What no test can tell, and why.\n"
    for module, (equivalent, _) in of.items():
        yield from _list(module, equivalent)
    if any(unlisted for _, unlisted in of.values()):
        yield "\n## Open\n"
        for module, (_, unlisted) in of.items():
            yield from _list(module, dict.fromkeys(unlisted, ""))


def _row(module: str, figures: dict[str, Any], equivalent: int, unlisted: int) -> str:
    by_status, n = Counter(figures["by_status"]), figures["mutants"]
    timeouts = by_status["timeout"]
    killed = n - equivalent - unlisted - timeouts
    score = (killed + timeouts) / (n - equivalent)
    numbers = f"{n} | {killed} | {timeouts} | {equivalent} | {unlisted} | {score:.1%}"
    return f"| `{module}` | {numbers} | {figures['commit'][:7]} |"


def _list(module: str, changes: dict[Change, str]) -> Iterator[str]:
    by_line: dict[tuple[str, str, str], list[str]] = {}
    for change, why in changes.items():
        by_line.setdefault((change.function, change.was, why), []).append(change.becomes)
    for (function, was, why), becomes in by_line.items():
        others = " or ".join(f"`{' '.join(text.splitlines())}`" for text in becomes)
        reason = f": {why}" if why else ""
        yield f"- `{module}`, `{function}`: `{' '.join(was.splitlines())}` becomes {others}{reason}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="dropout/token.py; or all")
    parser.add_argument("--page", action="store_true", help="only write the page again")
    options = parser.parse_args()
    if unknown := set(options.modules) - set(modules()):
        parser.error(f"{min(unknown)} is none of {', '.join(modules())}")
    known = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    for module in [] if options.page else options.modules or modules():
        known[module] = run(module)
        FIGURES.write_text(json.dumps(known, indent=1) + "\n")
        for change in split(module, known[module])[1]:
            print(f"{module}, {change.function}:\n- {change.was}\n+ {change.becomes}\n")
    PAGE.write_text(page(known))
    print(PAGE.relative_to(ROOT))
    return int(any(split(module, figures)[1] for module, figures in known.items()))


if __name__ == "__main__":
    sys.exit(main())
