import json
import os
import pickle
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import MissingMandatoryValue, OmegaConf

from common.errors import InUseError
from common.files import TEMPORARY
from experiments.records import find_records
from tracking import directory
from tracking.directory import RunDirectory, open_finished, open_run, run_hash

CONFIG = {
    "seed": 1, "steps": 10, "row_name": "learned", "table_name": None, "scale": "nano",
    "device": "auto",
    "dtype": "auto", "compile": False, "fresh": False, "log_every": 10, "save_every": 5,
    "eval_every": 5, "model": {"n_layer": 2}, "data": {"paths": ["a"]}, "tracker": {"mode": "auto"},
    "dropout": {"name": "learned", "mlp_output": {"_target_": "x", "shift_init": 0.0}},
}  # fmt: skip


def hash_of(data: str = "text", dtype: str = "float32", device: str = "cpu", **changes) -> str:
    return run_hash(CONFIG | changes, data, dtype=dtype, device_kind=device)


def open_in(root: Path, **changes) -> RunDirectory:
    config = CONFIG | {"runs_dir": str(root)} | changes
    return open_run(config, "text", dtype="float32", device_kind="cpu")


def leave(run: RunDirectory, status: str, **files: str) -> Path:
    """Close a run as its record would have it."""
    code = {"files": files, "commit": "abc"}
    record = {"status": status, "code": code, "time_s": 1.0}
    (run.path / "record.json").write_text(json.dumps(record))
    run.close()
    return run.path


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 2},
        {"steps": 11},
        {"compile": True},
        {"eval_every": 6},
        {"model": {"n_layer": 3}},
        {"dropout": {"name": "learned", "mlp_output": {"_target_": "x", "shift_init": 0.1}}},
        {"data": "other text"},
        {"dtype": "bfloat16"},
        {"device": "cuda"},
    ],
)
def test_what_changes_the_numbers_changes_the_hash(changes):
    assert hash_of(**changes) != hash_of()


@pytest.mark.parametrize(
    "changes",
    [
        {"tracker": {"mode": "offline"}},
        {"table_name": "published_nano"},
        {"row_name": "another name"},
        {"scale": "same values"},
        {"log_every": 1},
        {"save_every": 1},
        {"fresh": True},
        {"runs_dir": "elsewhere"},
    ],
)
def test_what_changes_no_number_does_not(changes):
    assert hash_of(**changes) == hash_of()


def test_the_hash_is_that_of_the_resolved_config_in_any_order():
    cfg = OmegaConf.create(
        CONFIG | {"steps": "${schedule.steps}", "schedule": {"a": 1, "steps": 10}}
    )
    plain = dict(reversed(CONFIG.items())) | {"schedule": {"steps": 10, "a": 1}}
    hashes = {run_hash(c, "text", dtype="float32", device_kind="cpu") for c in (cfg, plain)}
    assert len(hashes) == 1


def test_a_hash_is_what_it_has_ever_been_so_that_its_directory_is_found():
    assert hash_of()[:16] == "7884a05c87ac8ca7"
    based = run_hash(CONFIG, "text", dtype="float32", device_kind="cpu", base={"run_hash": "a"})
    assert based[:16] == "4e12e87e8e81f59f"


def test_a_config_that_lacks_a_value_has_no_hash():
    missing = OmegaConf.create(CONFIG | {"steps": "???"})
    with pytest.raises(MissingMandatoryValue):
        run_hash(missing, "text", dtype="float32", device_kind="cpu")


def test_a_new_run_stands_under_its_table_or_scale(tmp_path):
    with open_in(tmp_path) as run:
        assert run.status == "new"
        assert run.path == tmp_path / "nano" / "learned" / f"seed1-{run.run_hash[:8]}"
        assert OmegaConf.load(run.path / "config.yaml").model.n_layer == 2
    with open_in(tmp_path, table_name="published_nano") as run:
        assert run.path.parent == tmp_path / "published_nano" / "learned"


@pytest.mark.parametrize("runs_dir", [{}, {"runs_dir": None}])
def test_runs_lie_under_runs_where_nothing_else_is_said(tmp_path, monkeypatch, runs_dir):
    monkeypatch.chdir(tmp_path)
    with open_run(CONFIG | runs_dir, "text", dtype="float32", device_kind="cpu") as run:
        assert run.path.parent == Path("runs/nano/learned")
        assert run.config == CONFIG | runs_dir


def test_the_same_command_goes_on_or_finds_it_finished(tmp_path):
    path = leave(open_in(tmp_path), "running")  # as a killed process leaves it
    with open_in(tmp_path) as run:
        assert (run.status, run.path) == ("resume", path)
    leave(open_in(tmp_path), "interrupted")
    assert open_and_close(tmp_path) == "resume"
    leave(open_in(tmp_path), "failed")
    assert open_and_close(tmp_path) == "resume"
    leave(open_in(tmp_path), "finished")
    assert open_and_close(tmp_path) == "finished"


def open_and_close(root: Path) -> str:
    with open_in(root) as run:
        return run.status


GONE = {"dropout/gone.py": "0123456789abcdef"}


def test_a_run_that_used_other_code_is_not_gone_on_with_and_fresh_keeps_it_beside(tmp_path):
    path = leave(open_in(tmp_path), "interrupted", **GONE)
    with pytest.raises(
        ValueError, match=r"commit abc, since .* dropout/gone.py changed.*fresh=true"
    ):
        open_in(tmp_path)
    for n in (1, 2):
        with open_in(tmp_path, fresh=True) as run:
            assert run.status == "new"
            assert (path.with_name(f"old{n}-{path.name}") / "record.json").exists()
            leave(run, "finished")
    table = path.parent.parent
    assert [found for found, _ in find_records(table)] == [path / "record.json"]  # not the old ones


def test_a_new_directory_that_another_process_took_first_is_in_use(tmp_path, monkeypatch):
    """Once the old one has been moved aside: its lock is closed, and once."""
    leave(open_in(tmp_path), "finished")
    acquire = iter([directory.acquire])

    def taken(path, refuse):
        return next(acquire, lambda *_: refuse("another process"))(path, refuse)

    monkeypatch.setattr(directory, "acquire", taken)
    with pytest.raises(InUseError, match="in use by another process"):
        open_in(tmp_path, fresh=True)


def test_a_finished_run_stays_finished_and_says_what_changed_since(tmp_path):
    path = leave(open_in(tmp_path), "finished", **GONE)
    with open_in(tmp_path) as run:
        assert (run.status, run.changed) == ("finished", ["dropout/gone.py"])
    with pytest.raises(ValueError, match=r"finished by other code .*dropout/gone.py"):
        open_finished(path)


@pytest.mark.parametrize(("n", "more"), [(3, ""), (4, " and 1 more")])
def test_three_files_that_changed_are_named_and_the_rest_counted(tmp_path, n, more):
    files = {f"dropout/{name}.py": "0123456789abcdef" for name in "abcd"[:n]}
    path = leave(open_in(tmp_path), "interrupted", **files)
    said = f"{path} was started by other code (commit abc, since which dropout/a.py, dropout/b.py, "
    said += f"dropout/c.py{more} changed): one run's numbers come from one code. fresh=true runs"
    with pytest.raises(ValueError, match=f"^{re.escape(said)}"):
        open_in(tmp_path)


def finish(root: Path, **files: str) -> Path:
    """A finished run with all of its record that `open_finished` reads."""
    run = open_in(root)
    path = leave(run, "finished", **files)
    record = json.loads((path / "record.json").read_text())
    record |= {"run_hash": run.run_hash, "config": run.config, "seed": 1, "steps": 10}
    record |= {"device": {"kind": "cpu", "name": "Example CPU"}, "best": {"val/loss_nats": 4.0}}
    (path / "record.json").write_text(json.dumps(record))
    return path


def test_a_finished_run_is_opened_as_it_was_and_held(tmp_path):
    path = finish(tmp_path)
    with open_in(tmp_path) as run:
        known = run.id, run.run_hash, run.config
    with open_finished(path) as run:
        assert (run.path, run.status, run.changed) == (path, "finished", ())
        assert (run.id, run.run_hash, run.config) == known
        with pytest.raises(
            ValueError,
            match=rf"^{path} is in use by process {os.getpid()} on .*: "
            r"wait for it, stop it, or choose another seed or runs_dir=DIR$",
        ):
            open_in(tmp_path)
    open_in(tmp_path).close()


def test_a_finished_run_of_other_code_is_opened_where_that_is_asked_for(tmp_path):
    path = finish(tmp_path, **GONE)
    with pytest.raises(ValueError, match="finished by other code"):
        open_finished(path)
    open_finished(path, by_any_code=True).close()


def test_only_a_finished_run_is_opened_as_one(tmp_path):
    with pytest.raises(ValueError, match=r"is not a run's directory: it has no record\.json$"):
        open_finished(tmp_path)
    path = leave(open_in(tmp_path), "interrupted")
    with pytest.raises(ValueError, match="is interrupted, not finished: let the run go on first"):
        open_finished(path)


def test_a_copy_in_another_process_holds_nothing(tmp_path):
    with open_in(tmp_path) as run:
        copy = pickle.loads(pickle.dumps(run))
        assert (copy.path, copy.id) == (run.path, run.id)
        copy.close()
        with pytest.raises(ValueError, match="in use"):
            open_in(tmp_path)
    run.close()  # again, which does nothing
    open_in(tmp_path).close()


def test_a_run_that_cannot_be_opened_is_not_held(tmp_path):
    path = leave(open_in(tmp_path), "interrupted", **GONE)
    for _ in range(2):
        with pytest.raises(ValueError, match="other code"):
            open_in(tmp_path)
    (path / "record.json").unlink()
    open_in(tmp_path).close()


def test_a_base_is_known_by_its_hashes_and_not_by_its_path(tmp_path):
    one, other = ({"run_hash": "a", "checkpoint_sha256": c} for c in "bc")
    hashes = [
        run_hash(
            CONFIG | {"init_from": path}, "text", dtype="float32", device_kind="cpu", base=base
        )
        for path, base in (("here", one), ("there", one), ("here", other))
    ]
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_directory_is_that_of_all_that_the_hash_is_of(tmp_path):
    facts = {"dtype": "bfloat16", "device_kind": "cuda", "base": {"run_hash": "a"}}
    with open_run(CONFIG | {"runs_dir": str(tmp_path)}, "data", **facts) as run:
        assert run.run_hash == run_hash(CONFIG, "data", **facts)


def test_a_run_has_the_record_of_its_directory(tmp_path):
    with open_in(tmp_path) as run:
        assert run.read_record() == {}
        leave(run, "running")
        assert run.read_record()["status"] == "running"


def test_a_run_keeps_its_id_and_a_fresh_one_gets_another(tmp_path):
    with open_in(tmp_path) as first:
        leave(first, "interrupted")
    with open_in(tmp_path) as second:
        assert second.id == first.id
        assert (second.path / "nonce").read_text() == second.nonce
    with open_in(tmp_path, fresh=True) as third:
        assert third.id != first.id
        assert re.fullmatch(rf"{third.run_hash[:8]}-[0-9a-f]{{8}}", third.id)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"status": "running"}', "\x00"])
def test_a_damaged_record_is_named_and_fresh_gets_past_it(tmp_path, text):
    path = leave(open_in(tmp_path), "running")
    (path / "record.json").write_text(text)
    with pytest.raises(ValueError, match=r"record.json is not a run's record.*fresh=true keeps"):
        open_in(tmp_path)
    with open_in(tmp_path, fresh=True) as run:
        assert run.status == "new"


HOLD = """
import json, os, sys, time
from tracking.directory import open_run
if len(sys.argv) > 2:
    os.seteuid(int(sys.argv[2]))
config = json.loads(sys.argv[1])
run = open_run(config, "text", dtype="float32", device_kind="cpu")
print("held", flush=True)
time.sleep(300)
"""


def test_one_process_at_a_time_and_a_killed_one_leaves_nothing(tmp_path):
    config = json.dumps(CONFIG | {"runs_dir": str(tmp_path)})
    holder = subprocess.Popen([sys.executable, "-c", HOLD, config], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == b"held\n"
        for changes in ({}, {"fresh": True}):
            with pytest.raises(ValueError, match=f"is in use by process {holder.pid} on .* since"):
                open_in(tmp_path, **changes)
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    with open_in(tmp_path) as run:
        assert f"process {os.getpid()} " in (run.path / "lock").read_text()


def test_a_lock_on_a_directory_that_moved_away_does_not_count(tmp_path):
    with open_in(tmp_path) as old:
        old.path.rename(old.path.with_name("moved"))
        with open_in(tmp_path) as new:
            assert new.path == old.path
            with pytest.raises(ValueError, match="in use"):
                open_in(tmp_path)


def test_a_lock_that_is_a_link_is_refused_and_its_target_kept(tmp_path):
    path = leave(open_in(tmp_path), "running")
    precious = tmp_path / "precious"
    precious.write_text("content")
    (path / "lock").unlink()
    (path / "lock").symlink_to(precious)
    with pytest.raises(ValueError, match="lock must be a plain file"):
        open_in(tmp_path)
    assert precious.read_text() == "content"


def test_a_place_that_cannot_be_written_is_a_clear_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=rf"^cannot write {tmp_path}/file/.*\(runs_dir=DIR\)$"):
        open_in(tmp_path / "file")


def test_no_permission_is_a_clear_error(tmp_path):
    """As another user where the tests run as root, whom no permission stops."""
    (tmp_path / "locked").mkdir(mode=0o500)
    config = json.dumps(CONFIG | {"runs_dir": str(tmp_path / "locked" / "runs")})
    other_user = ["65534"] if os.getuid() == 0 else []
    command = [sys.executable, "-c", HOLD, config, *other_user]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert "permission denied" in done.stderr and "runs_dir=DIR" in done.stderr


def test_opening_a_run_removes_what_a_killed_save_left(tmp_path):
    path = leave(open_in(tmp_path), "running")
    leftover = path / "checkpoints" / f"{TEMPORARY}last-00000010"
    leftover.mkdir(parents=True)
    (leftover / "tensors.safetensors").write_bytes(b"half")
    kept = path / "checkpoints" / "last-00000005"
    kept.mkdir()
    with open_in(tmp_path):
        assert list((path / "checkpoints").iterdir()) == [kept]
