"""W&B as a tracker: where its key is looked for, and what it is sent, offline."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
import torch
import wandb
from omegaconf import OmegaConf
from wandb.sdk.lib.wbauth import read_netrc_auth

from common.wandb_places import has_wandb_key
from tracking.checkpoint import write_checkpoint
from tracking.lines import read_lines
from tracking.load import load_run
from tracking.trackers import Event, TrackedRun
from tracking.wandb import WandbTracker, _log_model
from training.state import build_model

SECRETS = {
    "WANDB_API_KEY": "5ec4e7" * 6 + "5ec4",  # as long as a real one
    "HF_TOKEN": "hf_plantedplantedplantedplantedplanted",
}


@pytest.fixture(autouse=True)
def no_key_of_this_machine(monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith(("WANDB_", "HF_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


# What a person may choose


@pytest.mark.parametrize("mode", ["of", "", "disabled", "Online"])
def test_a_mode_that_is_none_is_refused(mode):
    with pytest.raises(ValueError, match=rf"tracker.mode={mode} must be one of auto, online"):
        WandbTracker(project="p", mode=mode)


def test_online_without_a_key_is_refused_before_wandb_asks(monkeypatch):
    with pytest.raises(ValueError, match=r"tracker.mode=online needs a W&B key.*wandb login"):
        WandbTracker(project="p", mode="online")
    assert WandbTracker(project="p", mode="auto")._wandb_mode() == "offline"
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    for mode, taken in (("online", "online"), ("offline", "offline"), ("auto", None)):
        assert WandbTracker(project="p", mode=mode)._wandb_mode() == taken  # None: W&B's settings


NEW, KEY = urlsplit(wandb.Settings().base_url).netloc, "0123456789" * 4
OWN = "wandb.example.org:8080"


@pytest.mark.parametrize(
    ("netrc", "base_url", "found"),
    [
        (None, None, False),
        ("", None, False),
        (f"machine {NEW}\n  login user\n  password {KEY}\n", None, True),
        (f"machine api.wandb.ai\n  login user\n  password {KEY}\n", None, True),
        (f"machine {NEW} login user password {KEY}\n", f"https://{NEW}", True),
        (f"machine example.org login user password {KEY}\n", None, False),
        (f"machine {OWN} login user password {KEY}\n", f"https://{OWN}", True),
        (f"machine {OWN.split(':')[0]} login user password {KEY}\n", f"https://{OWN}", False),
        (f"machine api.wandb.ai login user password {KEY}\n", f"https://{OWN}", False),
        (f"machine {NEW} login user password {KEY}\n", f"https://{OWN}", False),
        (f"default login user password {KEY}\n", f"https://{OWN}", True),
        (f"machine {NEW} login user\n", None, False),
        ("machine \x00 what { is this", None, False),
    ],
)
def test_a_key_is_looked_for_where_wandb_keeps_it(tmp_path, monkeypatch, netrc, base_url, found):
    if netrc is not None:
        (tmp_path / "netrc").write_text(netrc)
    if base_url is not None:
        monkeypatch.setenv("WANDB_BASE_URL", base_url)
    assert has_wandb_key() is found
    assert bool(read_netrc_auth(host=base_url or wandb.Settings().base_url)) is found


def test_a_login_at_a_host_of_its_own_is_seen(tmp_path, monkeypatch):
    """`wandb login --host` keeps the address in W&B's settings file."""
    (tmp_path / "settings").write_text(f"[default]\nbase_url = https://{OWN}\n")
    (tmp_path / "netrc").write_text(f"machine {OWN} login user password {KEY}\n")
    assert not has_wandb_key()
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    assert has_wandb_key()
    monkeypatch.setenv("WANDB_BASE_URL", "no address")
    assert not has_wandb_key()


def test_wandb_is_not_imported_to_make_a_tracker(tmp_path):
    """It takes half a second, which the tracker's own thread has, not the run's start."""
    (tmp_path / "netrc").write_text(f"machine {NEW} login user password {KEY}\n")
    make = "tracking.wandb.WandbTracker(project='p')"
    command = f"import sys, tracking.wandb; {make}; sys.exit('wandb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", command]).returncode == 0


def test_a_disabled_wandb_is_no_failure(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    (tmp_path / "record.json").write_text("{}")
    run = TrackedRun("id", tmp_path, {}, "table", "row", "name")
    WandbTracker(project="p").track(run, [Event(1, {"val/loss_nats": 1.0})])
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


class Session:
    """As W&B has it after a resume online: its server holds the steps before `starting_step`."""

    offline, url, starting_step = False, "", 5

    def __init__(self, place):
        self.dir, self.sent, self.summary = str(place), [], {}
        self.disabled = True

    def define_metric(self, name, summary):
        pass

    def log(self, values, step=None, commit=None):
        self.sent.append(step)

    def finish(self, *_, **__):
        pass


def test_after_a_resume_online_no_step_is_lost_and_none_is_sent_twice(tmp_path):
    run = TrackedRun("id", tmp_path, {}, "table", "row", "name")
    session = Session(tmp_path)
    events = [Event(step, {"val/loss_nats": 1.0}) for step in range(1, 9)]
    WandbTracker(project="p")._send(session, run, events)
    assert session.sent == [5, 6, 7, 8, None]  # None: the last step is committed


# W&B for real, in a process of its own: a run that is killed, goes on, and finishes, its random
# streams as they were

SESSION = """
import json, logging, os, random, signal, sys
import numpy, torch
from tracking import wandb as tracker
from tracking.record import RunRecord
from tracking.directory import open_run
from tracking.wandb import WandbTracker

root, mode, first, last = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
tracker.START_TIMEOUT_S = 2.0
logging.basicConfig(level=logging.INFO)
config = {"seed": 1, "steps": 8, "eval_every": 2, "row_name": "learned",
          "table_name": "published_nano", "scale": "nano", "runs_dir": root + "/runs",
          "model": {"n_layer": 2}}
run = open_run(config, "text", dtype="float32", device_kind="cpu")
facts = {"code": {"commit": None, "files": {}}, "versions": {},
         "device": {"kind": "cpu", "name": "Example CPU"}}

def random_streams():
    return random.getstate(), str(numpy.random.get_state()), torch.get_rng_state().tolist()

before = random_streams()
chosen = WandbTracker(project="dropout", mode=mode, tags=["mine"], model=True)
for step in (2, 4):
    best = run.checkpoints / f"best-0000000{step}"
    best.mkdir(parents=True, exist_ok=True)
    (best / "tensors.safetensors").write_bytes(b"weights")
with RunRecord(run, facts, chosen, first - 1) as record:
    for step in range(first, last + 1):
        record.log(step, {"train/batch_loss_nats": 1 / step, "lr": 0.1})
        if step % 2 == 0:
            loss = {"val/loss_nats": abs(step - 4), "val/loss_stderr": 1.0, "eval/above_0.9": 0.5}
            record.log(step, loss | {"modules/block0/mlp_output/eval/ones": 0.5})
            record.log_masks(step, {"block0/mlp_output": torch.linspace(0, 1, 20)})
            record.log_samples(step, ["Once upon a time"])
    if last < 8:
        record._guard._thread.join(1.5)  # time to write something
        os.kill(os.getpid(), signal.SIGKILL)
    record.finish(8, {"val/loss_nats": 4.5, "tokens": 64}, 4, {"val/loss_nats": 0.5})
assert random_streams() == before
"""


def session(root: Path, mode: str, first: int, last: int, **env: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", SESSION, str(root), mode, str(first), str(last)],
        env=os.environ | SECRETS | {"OMP_NUM_THREADS": "1"} | env,
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def resumed(tmp_path_factory) -> tuple[Path, str]:
    """A run that W&B saw killed at step 6 and go on from step 4, and what it said."""
    root = tmp_path_factory.mktemp("wandb")
    assert session(root, "offline", 1, 6)[0] == -9
    code, said = session(root, "offline", 5, 8)
    assert code == 0, said
    return root, said


@pytest.fixture(scope="module")
def wandb_records(resumed) -> list[dict]:
    return records_below(resumed[0])


def records_below(root: Path) -> list[dict]:
    """What `wandb leet inspect` reads in the one `.wandb` file that there is."""
    (file,) = root.glob("runs/published_nano/learned/*/wandb/offline-run-*/*.wandb")
    wandb = Path(sys.executable).with_name("wandb")
    command = [str(wandb), "leet", "inspect", "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def summary_of(records: list[dict]) -> dict:
    summary: dict = {}
    for record in records:
        if record["type"] == "summary":
            summary |= record["summary"].get("update", {})
    return summary


def curves(records: list[dict]) -> list[tuple]:
    items = [record["history"]["item"] for record in records if record["type"] == "history"]
    return [(item["_step"], item.get("val/loss_nats"), item["optimizer/lr"]) for item in items]


def test_wandb_has_config_group_and_job_type(wandb_records, resumed):
    (run,) = [record["run"] for record in wandb_records if record["type"] == "run"]
    assert (run["project"], run["run_group"], run["job_type"]) == (
        "dropout",
        "published_nano",
        "learned",
    )
    assert set(run["tags"]) >= {"mine", "nano", "learned"}
    assert run["config"]["update"]["model"] == {"n_layer": 2}
    assert run["config"]["update"]["seed"] == 1
    assert run["config"]["update"]["facts"]["code"]["files"] == {}
    (path,) = resumed[0].glob("runs/published_nano/learned/seed1-*")
    assert run["run_id"].endswith((path / "nonce").read_text())


def test_wandb_has_the_history_without_gaps_or_doubled_steps(wandb_records, resumed):
    history = [r["history"]["item"] for r in wandb_records if r["type"] == "history"]
    assert [item["_step"] for item in history] == list(range(1, 9))
    (metrics,) = resumed[0].glob("runs/published_nano/learned/seed1-*/metrics.jsonl")
    for line in read_lines(metrics):
        item = history[line["step"] - 1]
        if "train/batch_loss_nats" in line:
            assert item["train/batch_loss_nats"] == line["train/batch_loss_nats"]
    assert [item["val/loss_nats"] for item in history[1::2]] == [2, 0, 2, 4]
    assert history[1]["masks/all.values"] == [1] * 20
    assert history[3]["samples._type"] == "table-file"
    tables = resumed[0].glob(
        "runs/published_nano/learned/*/wandb/offline-run-*/files/media/table/*"
    )
    samples = [json.loads(path.read_text()) for path in tables]
    assert {tuple(s["columns"]) for s in samples} == {("step", "prompt", "sample")}
    assert [2, "(end of text)", "Once upon a time"] in [s["data"][0] for s in samples]


def test_wandb_has_the_record_as_a_file_of_the_run(wandb_records, resumed):
    (record,) = resumed[0].glob("runs/published_nano/learned/*/record.json")
    (kept,) = resumed[0].glob("runs/published_nano/learned/*/wandb/offline-run-*/files/record.json")
    assert kept.read_bytes() == record.read_bytes() and not kept.is_symlink()
    files = [file for r in wandb_records if r["type"] == "files" for file in r["files"]["files"]]
    assert files.count({"path": "record.json"}) == 2  # at the start, and at the end


def test_wandb_has_the_best_checkpoint_where_a_run_has_it(wandb_records):
    (model,) = [
        r["artifact"]
        for r in wandb_records
        if r["type"] == "artifact" and r["artifact"]["type"] == "model"
    ]
    paths = [entry["path"] for entry in model["manifest"]["contents"]]
    weights = "checkpoints/best-00000004/tensors.safetensors"
    assert sorted(paths) == [weights, "config.yaml", "record.json"]
    assert set(model["aliases"]) == {"latest", "best"}


def test_the_folder_of_the_model_artifact_is_a_run_to_load(tmp_path, tiny_cfg):
    """As `wandb artifact get` lays it out: each file at its path in the manifest."""
    directory, cfg = tmp_path / "run", tiny_cfg()
    weights = build_model(cfg).state_dict()
    tensors = {f"model.{name}": weight for name, weight in weights.items()}
    best = write_checkpoint(directory / "checkpoints", "best-00000004", tensors, {"step": 4})
    (directory / "config.yaml").write_text(OmegaConf.to_yaml(cfg))
    record = {"status": "finished", "dtype": "bfloat16", "code": {"commit": None, "files": {}}}
    (directory / "record.json").write_text(json.dumps(record))
    logged: list[wandb.Artifact] = []
    session = SimpleNamespace(log_artifact=lambda model, aliases: logged.append(model))
    _log_model(session, TrackedRun("id", directory, {}, "table", "row", "name"))

    folder = tmp_path / "got"
    for name, entry in logged[0].manifest.entries.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(entry.local_path, folder / name)
    shutil.rmtree(directory)
    run = load_run(folder, "best", "cpu")
    assert run.checkpoint.path.name == best.name and run.machine.dtype_name == "bfloat16"
    assert all(torch.equal(run.model.state_dict()[name], weights[name]) for name in weights)


@pytest.mark.slow
def test_a_finished_run_is_sent_again_with_what_was_added(resumed, tmp_path, wandb_records):
    shutil.copytree(resumed[0], tmp_path, dirs_exist_ok=True)
    (run,) = tmp_path.glob("runs/published_nano/learned/*")
    test = {"final": {"step": 8, "test/loss_nats": 4.6}, "best": {"step": 4, "test/loss_nats": 0.6}}
    record = json.loads((run / "record.json").read_text()) | {"test": test}
    (run / "record.json").write_text(json.dumps(record))
    (run / "masks").mkdir()
    (run / "masks" / "index.html").write_text("<p>masks</p>")
    command = [sys.executable, "-m", "tracking.send", "--run", str(run), "--mode", "offline"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "wandb sync" in done.stderr, done.stderr
    now = records_below(tmp_path)
    assert curves(now) == curves(wandb_records)
    summary = summary_of(now)
    assert (summary["final/test/loss_nats"], summary["best/test/loss_nats"]) == (4.6, 0.6)
    assert (summary["final/val/loss_nats"], summary["best/step"]) == (4.5, 4)
    assert any("inspection/masks" in name for name in summary)
    (kept,) = run.glob("wandb/offline-run-*/files/record.json")
    assert json.loads(kept.read_text()) == record


def test_wandb_has_minimum_and_last_and_the_closing_evaluations_in_its_summary(wandb_records):
    summary = summary_of(wandb_records)
    assert summary["val/loss_nats"] == {"min": 0, "last": 4}
    assert summary["eval/above_0_9"] == {"min": 0.5, "last": 0.5}
    assert summary["val/loss_stderr"] == 1.0
    assert summary["optimizer/lr"] == 0.1
    assert (summary["final/val/loss_nats"], summary["progress/tokens"]) == (4.5, 64)
    assert (summary["best/val/loss_nats"], summary["best/step"]) == (0.5, 4)
    assert not any("modules" in name for name in summary)
    assert [r["exit"]["exit_code"] for r in wandb_records if r["type"] == "exit"] == [0]


def test_wandb_is_told_the_time_of_the_whole_run(wandb_records, resumed):
    (path,) = resumed[0].glob("runs/published_nano/learned/*/record.json")
    summary = [r["summary"].get("update", {}) for r in wandb_records if r["type"] == "summary"]
    (told, *_) = [one["progress/time_s"] for one in reversed(summary) if "progress/time_s" in one]
    assert told == json.loads(path.read_text())["metrics"]["time_s"]


@pytest.mark.slow
def test_the_names_of_the_environment_win(tmp_path):
    own = {"NAME": "mine", "TAGS": "a,b", "RUN_GROUP": "ours", "JOB_TYPE": "a job"}
    code, said = session(tmp_path, "offline", 1, 8, **{f"WANDB_{k}": v for k, v in own.items()})
    assert code == 0, said
    (run,) = [record["run"] for record in records_below(tmp_path) if record["type"] == "run"]
    assert (run["display_name"], run["run_group"], run["job_type"]) == ("mine", "ours", "a job")
    assert set(run["tags"]) == {"a", "b", "mine"}  # the last by tracker.tags


def test_wandb_keeps_still_and_the_run_says_how_to_look_and_send(resumed):
    root, said = resumed
    (folder,) = root.glob("runs/published_nano/learned/*/wandb/offline-run-*")
    (line,) = said.strip().splitlines()
    assert f"wandb leet {folder}" in line and f"wandb sync {folder}" in line


def test_no_secret_is_in_any_byte(resumed, tmp_path):
    """Online too, at an address that refuses: the training does not wait for it."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
    code, said = session(tmp_path, "online", 1, 8, WANDB_BASE_URL=address)
    assert code == 0
    assert said.count("WARNING") == 1 and "the tracker is dropped: CommError" in said
    (record,) = tmp_path.glob("runs/published_nano/learned/seed1-*/record.json")
    assert json.loads(record.read_text())["status"] == "finished"
    n_bytes = 0
    for text in [*all_bytes(tmp_path), *all_bytes(resumed[0]), said.encode(), resumed[1].encode()]:
        n_bytes += len(text)
        assert not any(secret.encode() in text for secret in SECRETS.values())
    assert n_bytes > 10_000


def all_bytes(root: Path) -> Iterator[bytes]:
    return (path.read_bytes() for path in root.rglob("*") if path.is_file())
