"""Whatever a record or a table's file holds: a result or one line, within a second."""

import contextlib
import json
import os
import random
import time

import pytest

from common.door import read_yaml
from common.errors import UserError
from experiments.figures import draw
from experiments.page import render
from experiments.records import read_records
from experiments.runs import load_table
from experiments.spec import load_spec
from experiments.table import main
from tests.mutations import mangle, mutate

LIMIT_S = 1.0  # of computing, so that a busy machine fails no test; a wait is pytest's to end
MUTATIONS = 200


def _one_line_or_a_result(make):
    began = time.process_time()
    with contextlib.suppress(UserError):
        make()
    assert time.process_time() - began < LIMIT_S


@pytest.mark.parametrize("part", range(4))
def test_a_mutated_record_is_a_result_or_a_line(part, write, make_record, small_case, tmp_path):
    draw, spec = random.Random(part), load_spec(small_case)
    for seed in (1, 2):
        write(make_record("none", seed, 4.0, 2.6))
    record = make_record("learned", 1, 4.0, 2.6, **{"metrics__train/ones": 0.4})
    path = write(record)
    for _ in range(MUTATIONS // 4):
        if draw.random() < 0.7:
            path.write_text(json.dumps(mutate(record, draw)))
        else:
            path.write_bytes(mangle(json.dumps(record), draw))
        _one_line_or_a_result(lambda: render(load_table(spec, tmp_path / "runs"), "c"))


@pytest.mark.parametrize("part", range(4))
def test_a_mutated_table_file_is_a_result_or_a_line(part, small_case, small_runs, tmp_path):
    draw, content = random.Random(part), read_yaml(tmp_path / "small_case.yaml")
    text = (tmp_path / "small_case.yaml").read_text()
    mutated = tmp_path / "mutated.yaml"
    for _ in range(MUTATIONS // 4):
        if draw.random() < 0.6:
            mutated.write_text(json.dumps(mutate(content, draw)))  # JSON is YAML
        else:
            mutated.write_bytes(mangle(text, draw))
        _one_line_or_a_result(lambda: render(load_table(load_spec(str(mutated)), small_runs), "c"))


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "\n".join(
    f"{name}: &{name} [*{before}, *{before}, *{before}, *{before}, *{before}, *{before}, *{before}]"
    for before, name in zip("abcdefghij", "bcdefghijk", strict=True)
)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (BOMB, r"\*a must be written out"),
        ("title: " + "x" * 2**17, "must have at most 131,072 bytes"),
        ("title: " + "[" * 1000 + "]" * 1000, "nested at most 40 deep"),
        ("title: \udcff", "is not UTF-8"),
        ("title: !!int x", "not readable YAML"),
        ("title: !!timestamp x", "not readable YAML"),
        ("title: 2001-99-99", "not readable YAML"),
        ("title: !!python/object/apply:os.system [id]", "not readable YAML"),
    ],
)
def test_a_hostile_table_file_is_a_line(tmp_path, content, said):
    path = tmp_path / "mine.yaml"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    began = time.process_time()
    with pytest.raises(UserError, match=said):
        load_spec(str(path))
    assert time.process_time() - began < LIMIT_S


def test_a_record_too_deep_is_a_line(write, make_record, tmp_path):
    path = write(make_record("none", 1, 4.0, 2.6))
    for depth in (41, 900, 100_000):
        path.write_text('{"schema": 2, "a": ' + "[" * depth + "]" * depth + "}")
        with pytest.raises(UserError, match=r"deep|recursion"):
            read_records(tmp_path / "runs")


@pytest.mark.parametrize("place", ["record", "table"])
def test_a_pipe_is_not_waited_for(place, small_case, small_runs, tmp_path, capsys):
    path = small_runs / "none" / "seed1.json" if place == "record" else tmp_path / "pipe.yaml"
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    table = small_case if place == "record" else str(path)
    began = time.process_time()
    assert main([table, "--runs", str(small_runs), "--out", str(tmp_path / "x.md")]) == 2
    assert time.process_time() - began < LIMIT_S
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "must be a plain file" in error


def test_the_largest_numbers_that_pass_can_be_drawn(write, make_record, small_case, tmp_path):
    for row, val in (("none", 9e11), ("learned", -9e11)):
        for seed in (1, 2, 3):
            write(make_record(row, seed, val / seed, 1e11))
    table = load_table(load_spec(small_case), tmp_path / "runs")
    assert render(table, "c") and len(draw(table, tmp_path / "figures")) == 5
