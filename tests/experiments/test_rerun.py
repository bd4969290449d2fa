"""A table's own commands, run by `python -m experiments.rerun`; train.py is a small program here."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from common.errors import UserError
from experiments import rerun
from experiments.spec import load_spec, table_names

SAYS = "import sys; print(*sys.argv[1:], flush=True); sys.exit('table=bad' in sys.argv and 7)"
ROW = "rows: [{name: none, label: none, family: none}]"


@pytest.fixture
def table(tmp_path):
    """A function from a command to the path of a table that is made by it."""

    def written(command: str) -> str:
        path = tmp_path / "mine.yaml"
        path.write_text(f"title: mine\ncommand: {command}\n{ROW}\n")
        return str(path)

    return written


@pytest.fixture
def says(tmp_path, monkeypatch):
    """In place of train.py: it says what it was given, and fails for one table."""
    path = tmp_path / "train.py"
    path.write_text(SAYS)
    monkeypatch.setattr(rerun, "TRAIN", path)


@pytest.mark.parametrize("name", [name for name in table_names() if name != "tuned_nano"])
def test_every_table_names_configs_that_are_there(name):
    for arguments in rerun.commands(load_spec(name), []):
        (table,) = (a.partition("=")[2] for a in arguments if a.startswith("table="))
        assert (Path(rerun.TRAIN).parent / "configs/table" / f"{table}.yaml").is_file()


def test_a_table_that_a_search_makes_is_refused_with_its_commands(table):
    with pytest.raises(UserError, match=r"made by more than train.py.*python -m search"):
        rerun.commands(load_spec(table("python -m search none && python train.py table=one")), [])


def test_what_tells_the_rows_apart_is_refused():
    with pytest.raises(UserError, match=r"dropout\.p, row: rerun makes all rows of family_nano"):
        rerun.commands(load_spec("family_nano"), ["row=family/head", "dropout.p=0.1", "seed=2"])


def test_what_is_given_takes_the_place_of_the_command_s_own():
    spec = load_spec("adapters_nano")
    assert rerun.commands(spec, []) == [["table=adapters", "init_from=RUN_DIR"]]
    given = ["init_from=runs/mine", "seed=1,2"]
    assert rerun.commands(spec, given) == [["table=adapters", *given]]


@pytest.mark.usefixtures("says")
def test_all_commands_run_in_turn(table, capfd):
    made = table("python train.py table=one && python train.py table=two")
    assert rerun.main([made, "seed=1,2"]) == 0
    out = capfd.readouterr().out.splitlines()
    assert out == ["$ python train.py table=one seed=1,2", "table=one seed=1,2",
                   "$ python train.py table=two seed=1,2", "table=two seed=1,2"]  # fmt: skip


@pytest.mark.usefixtures("says")
def test_the_first_that_fails_is_the_last(table, capfd):
    assert rerun.main([table("python train.py table=bad && python train.py table=two")]) == 7
    assert "table=two" not in capfd.readouterr().out


def test_a_command_with_a_quotation_left_open_is_told(table, capsys):
    assert rerun.main([table('"python train.py row=\'none"')]) == 2
    assert "must be a command line: No closing quotation" in capsys.readouterr().err


@pytest.mark.parametrize("saved_code", [75, 0])
@pytest.mark.parametrize("group", [True, False], ids=["Ctrl-C", "SIGTERM"])
def test_a_run_that_saves_on_a_signal_is_waited_for(table, tmp_path, group, saved_code):
    """Of a terminal's Ctrl-C both are told, of a SIGTERM the parent alone."""
    saves = tmp_path / "train.py"
    saves.write_text(
        "import signal, sys, time\n"
        "def save(*_):\n    time.sleep(0.1); print('saved', flush=True); "
        f"sys.exit({saved_code})\n"
        "signal.signal(signal.SIGINT, save); signal.signal(signal.SIGTERM, save)\n"
        "print('ready', flush=True)\ntime.sleep(60)\n"
    )
    made = table("python train.py table=one && python train.py table=two")
    code = (
        f"from pathlib import Path; from experiments import rerun; "
        f"rerun.TRAIN = Path({str(saves)!r}); raise SystemExit(rerun.main([{made!r}]))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True,
                               start_new_session=True)  # fmt: skip
    with process:
        while process.stdout.readline().strip() != "ready":
            assert process.poll() is None
        time.sleep(0.1)
        if group:
            os.killpg(process.pid, signal.SIGINT)
        else:
            process.terminate()
        assert process.stdout.read().splitlines() == ["saved"]
    assert process.returncode == 75
