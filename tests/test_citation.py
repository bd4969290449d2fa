"""CITATION.cff: whole, and of this version."""

import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]


def test_it_has_what_the_format_requires_and_the_packages_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation.keys() >= {"cff-version", "message", "title", "authors"}
    assert all(work.keys() >= {"type", "title", "authors"} for work in citation["references"])
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
