"""Versions of a file that compute the same: those that a rerun of finished runs has shown to.

A run's record names the files that it used, each by a digest of what it computes. A file that is
written anew without changing a number has another digest all the same; `results/same_code.json` says
which digests stand for one another, and which reruns showed it (`python -m experiments.same_code`).
"""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

PATH = Path(__file__).resolve().parents[1] / "results" / "same_code.json"


def oldest(file: str, digest: str) -> str:
    """The digest of the oldest version of the file that is known to compute the same."""
    return _followed(_before(PATH), file, digest)


def _followed(before: Mapping[tuple[str, str], str], file: str, digest: str) -> str:
    while (file, digest) in before:
        digest = before[file, digest]
    return digest


def read(path: Path = PATH) -> list[dict[str, Any]]:
    """What was shown: entries of `files` ({name: [then, now]}), `runs`, `until`, `commit`."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


@cache
def _before(path: Path) -> Mapping[tuple[str, str], str]:
    before: dict[tuple[str, str], str] = {}
    for entry in read(path):
        for file, (then, now) in entry["files"].items():
            one, other = (_followed(before, file, digest) for digest in (then, now))
            if one != other:  # of two that were each shown equal to a third, the oldest are one too
                before[file, other] = one
    return before
