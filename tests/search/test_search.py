"""Searches whose runs are the fake one: real processes, real signals, losses known beforehand."""

import os
import re
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.pruners import MedianPruner
from optuna.trial import TrialState

from common.errors import IN_USE, INTERRUPTED
from search import __main__, search, study
from search.space import load_space
from search.study import JOURNAL, open_study

SPACE = """\
title: a toy
prune_from: 0.5
parameters:
  optimizer.lr: {low: 0.0001, high: 0.1, log: true}
"""


@pytest.fixture(autouse=True)
def _fake_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "TRAIN", Path(__file__).with_name("fake_train.py"))
    monkeypatch.setattr(search, "LOOK_EVERY_S", 0.0)
    monkeypatch.setattr("cli.sweep.sweep.POLL_S", 0.01)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "toy.yaml").write_text(SPACE)
    return tmp_path


def run(place: Path, *arguments: str, runs: str = "runs") -> int:
    return __main__.main([str(place / "toy.yaml"), "--runs", str(place / runs), *arguments])


def opened(place: Path, runs: str = "runs"):
    folder = place / runs / "searches" / "toy"
    folder.mkdir(parents=True, exist_ok=True)
    return open_study(folder, load_space(str(place / "toy.yaml")), ())


def trials(place: Path, runs: str = "runs") -> list[optuna.trial.FrozenTrial]:
    with opened(place, runs) as found:
        return found.trials


def after(ready: Callable[[], bool], act: Callable[[], None]) -> None:
    """Do it in the background, once it is time."""

    def wait() -> None:
        pause = threading.Event()
        while not ready():
            pause.wait(0.01)
        act()

    threading.Thread(target=wait, daemon=True).start()


def test_the_best_trial_is_the_lowest_mean_over_seeds_and_is_told_how_to_train(place, capsys):
    assert run(place, "--trials", "4", "--workers", "2") == 0
    done = trials(place)
    assert [trial.state for trial in done] == [TrialState.COMPLETE] * 4
    for trial in done:
        values = trial.user_attrs["values"]
        assert trial.value == pytest.approx((values["1"] + values["2"]) / 2)
        assert values["2"] == pytest.approx(values["1"] + 0.01)  # as the fake run has it
        assert len(trial.intermediate_values) == 11
    best = min(done, key=lambda trial: trial.value)
    rate = f"optimizer.lr={best.params['optimizer.lr']:.3g}"
    command = (
        f"python train.py -m {rate} 'table_name=tuned_${{scale}}' row_name=toy seed=3,4,5,6,7,8"
    )
    page = (place / "runs/searches/toy/study.md").read_text()
    assert command in page
    assert command in capsys.readouterr().out
    assert re.search(rf"\| {best.number} +\| +{best.value:.3f} ", page)
    assert "<svg" in (place / "runs/searches/toy/history.svg").read_text()


def test_the_same_command_makes_the_trials_that_are_missing_and_no_others(place):
    assert run(place, "--trials", "1") == 0
    figure = place / "runs/searches/toy/history.svg"
    before = figure.read_bytes()
    assert run(place, "--trials", "1") == 0
    assert figure.read_bytes() == before
    assert run(place, "--trials", "2") == 0
    assert len(trials(place)) == 2
    logs = place / "runs/searches/toy/logs"
    assert (logs / "trial0-seed1.log").read_text().count("run directory") == 1


def test_what_a_kill_leaves_is_gone_on_with_and_changes_no_trial(place, capsys):
    assert run(place, "--trials", "2", runs="undisturbed") == 0
    with opened(place) as killed:  # the process died with a trial begun and a line half written
        space = load_space(str(place / "toy.yaml"))
        space.suggest(study.ask(killed))
    folder = place / "runs/searches/toy"
    with (folder / JOURNAL).open("a") as file:
        file.write('{"op_code": 4, "wor')
    (folder / f"{JOURNAL}.lock").symlink_to(folder / JOURNAL)
    assert run(place, "--trials", "2") == 0
    ours, theirs = trials(place), trials(place, "undisturbed")
    assert [trial.state for trial in ours] == [TrialState.COMPLETE] * 2
    assert [trial.params for trial in ours] == [trial.params for trial in theirs]


def test_ctrl_c_lets_the_runs_save_and_the_trial_goes_on(place, capsys):
    metrics = (place / "runs").rglob
    after(
        lambda: any(file.stat().st_size for file in metrics("metrics.jsonl")),
        lambda: os.kill(os.getpid(), signal.SIGINT),
    )
    assert run(place, "--trials", "1", "pace_s=0.05") == 75
    said = capsys.readouterr().out
    assert "the running jobs save first" in said
    assert "to go on: python -m search" in said
    assert "Trials: 1 cut off." in said
    assert run(place, "--trials", "1", "pace_s=0.05") == 0
    (directory,) = (place / "runs/search_toy/row").glob("seed1-*")
    assert len((directory / "metrics.jsonl").read_text().splitlines()) == 11


def test_a_hopeless_trial_is_pruned_by_a_signal_and_is_no_failure(place, monkeypatch, capsys):
    monkeypatch.setattr(study, "MedianPruner", lambda: MedianPruner(n_startup_trials=1))
    with opened(place) as prepared:
        for rate in (0.001, 0.1):
            prepared.enqueue_trial({"optimizer.lr": rate})
        prepared.set_user_attr(
            "search", {**prepared.user_attrs["search"], "given": ["pace_s=0.03"]}
        )
    assert run(place, "--trials", "2", "pace_s=0.03") == 0
    said = capsys.readouterr().out
    assert re.search(r"trial 1  .*pruned at step \d+", said)
    assert "failed" not in said
    assert "Trials: 1 complete, 1 pruned." in said
    (directory,) = (d for d in (place / "runs/search_toy/row").iterdir()
                    if not (d / "summary.json").exists())  # fmt: skip
    steps = [10 * i for i in range(len((directory / "metrics.jsonl").read_text().splitlines()))]
    assert 50 <= steps[-1] < 100  # not before `prune_from`
    assert run(place, "--trials", "2", "pace_s=0.03") == 0  # it counts


def test_a_loss_that_is_not_finite_counts_as_pruned(place, capsys):
    assert run(place, "--trials", "2", "ends=3") == 0
    assert "Trials: 2 not finite." in capsys.readouterr().out


def test_a_failed_trial_leaves_the_others_alone_and_does_not_count(place, capsys):
    assert run(place, "--trials", "2", "ends=1") == 1
    said = capsys.readouterr().out
    assert said.count("exit 1: error: this one ends with 1") == 4  # as it ends, and in the summary
    assert "Trials: 2 failed." in said
    assert run(place, "--trials", "2", "ends=1") == 1
    assert "Trials: 4 failed." in capsys.readouterr().out


def test_a_run_that_another_process_has_is_no_failed_trial(place, capsys):
    assert run(place, "--trials", "2", f"ends={IN_USE}") == INTERRUPTED
    said = capsys.readouterr().out
    assert "Trials: 1 cut off." in said  # and no second one that would be cut off as well
    assert "failed" not in said


def test_a_mistake_in_the_command_ends_the_search_at_the_first_trial(place, capsys):
    assert run(place, "--trials", "9", "ends=2") == 1
    assert "Trials: 1 failed." in capsys.readouterr().out


def refused(capsys, *arguments) -> str:
    with pytest.raises(SystemExit) as exit_:
        run(*arguments)
    return f"{exit_.value.code} {capsys.readouterr().err}"


def test_a_study_is_of_one_space_and_one_set_of_overrides(place, capsys):
    assert run(place, "--trials", "0") == 0
    said = refused(capsys, place, "--trials", "0", "scale=small")
    assert "2 error: study=toy was begun with other given" in said
    (place / "toy.yaml").write_text(SPACE.replace("0.1,", "0.2,"))
    assert "begun with other parameters" in refused(capsys, place, "--trials", "0")
    (place / "toy.yaml").write_text(SPACE.replace("a toy", "the toy"))
    assert run(place, "--trials", "0") == 0


def test_two_processes_do_not_share_a_study(place, capsys):
    with opened(place):
        assert refused(capsys, place).startswith(f"{IN_USE} error: ")


def test_a_damaged_journal_is_one_line(place, capsys):
    assert run(place, "--trials", "0") == 0
    (place / "runs/searches/toy" / JOURNAL).write_text("no journal\nat all\n")
    assert "is not a study's journal" in refused(capsys, place)


@pytest.mark.parametrize("name", ["a/b", "..", "a" * 99, ""])
def test_a_studys_name_is_a_name(place, capsys, name):
    assert "--study" in refused(capsys, place, "--study", name)


def test_without_optuna_it_is_said_how_to_install_it(place, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert "pip install -c constraints.txt -e '.[search]'" in refused(capsys, place)
