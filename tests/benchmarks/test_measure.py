"""The clocks and tables."""

import json

import pytest

from benchmarks import cpu, gpu, measure, roofline, start_up
from benchmarks.contender import Contender, Spec, Stepper, compose_config

TINY = ("scale=nano", *gpu.TINY, *gpu.TINY_STEP)


class InProcess:
    """A contender without a process of its own: the same steps, sooner."""

    directory = None

    def __init__(self, spec: Spec) -> None:
        self.spec, self._stepper = spec, Stepper(spec, self.directory)
        self.facts = self._stepper.facts

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def steps(self, n):
        return self._stepper.reply(n)["times_s"]

    def working_bytes(self):
        return self._stepper.reply(0)["working_bytes"]


@pytest.fixture
def in_process(monkeypatch, tmp_path):
    monkeypatch.setattr(InProcess, "directory", tmp_path)
    monkeypatch.setattr(measure, "Contender", InProcess)
    monkeypatch.setattr(gpu, "Contender", InProcess)


def test_a_contender_is_a_process_that_steps_and_ends():
    with Contender(Spec("plain", (*TINY, "dropout=none"), "float32", device="cpu")) as contender:
        times, losses = contender.steps(2), contender.losses(1)
        process = contender._process
    assert len(times) == 2 and min(times) > 0
    assert losses[0] == pytest.approx(4.56, abs=0.3)  # log(96)
    assert process.poll() is not None


def test_a_contender_that_fails_says_so(capfd):
    with pytest.raises(RuntimeError, match="ended with exit code"):
        Contender(Spec("ours", ("scale=nothing",)))
    assert "nothing" in capfd.readouterr().err


def test_race_takes_turns(in_process, monkeypatch):
    turns = []
    original = InProcess.steps
    monkeypatch.setattr(
        InProcess, "steps", lambda self, n: turns.append(self.spec.kind) or original(self, n)
    )
    specs = [Spec(k, (*TINY, "dropout=none"), "float32", device="cpu") for k in ("ours", "plain")]
    ours, plain = measure.race(specs, rounds=3)
    assert turns == ["ours", "plain"] * 4  # a warm-up and three rounds
    assert ours.tokens_per_s == pytest.approx(32 / ours.step_s)
    assert ours.facts["flops_per_token"] == plain.facts["flops_per_token"]


def test_the_gpu_command_runs_dry(in_process, capsys, tmp_path):
    gpu.main(["--dry-run", "--out", str(tmp_path / "gpu.json")])
    table = capsys.readouterr().out
    for work in ("published", "small, 1 at once", "small, 2 at once", "s a row"):
        assert work in table
    assert (tmp_path / "gpu.json").exists()


def test_no_part_begins_after_the_limit(in_process, monkeypatch):
    monkeypatch.setattr(gpu, "LIMIT_S", -1)
    assert gpu.measure("cpu")["table"].count("skipped") == 4


def test_the_cpu_table_compares_and_keeps_other_parts(in_process, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(cpu, "SCALES", {"tiny": TINY})
    monkeypatch.setattr(cpu, "WORK", {"tiny": "tiny"})
    monkeypatch.setattr(cpu, "BARS", {"tiny": 1.5})
    monkeypatch.setattr(cpu, "matrix_peak", lambda device, dtype: 1e12)
    monkeypatch.setattr(cpu.start_up, "run", lambda arguments: 0.5)
    out = tmp_path / "cpu.json"
    cpu.main(["--quick", "--only", "tiny", "--out", str(out)])
    cpu.main(["--only", "start", "--out", str(out)])
    printed, said = capsys.readouterr()
    assert "eager" in printed and "0.50 s" in printed
    rows = [[cell.strip() for cell in line.split("|")] for line in printed.splitlines()]
    bars = {row[2]: row[-2] for row in rows if row[1:2] == ["tiny"] and float(row[-3]) > 0}
    assert bars == {
        "none": "1.50", "standard": "1.50", "learned": "1.50",
        "standard / none": "1.05", "learned / none": "1.10",
    }  # fmt: skip
    assert said.count(" gone, about ") == 1 + 3 * (2 * 2 + 1) + 1 + 1
    assert "tiny, standard: plain eager bfloat16 with our allocator" in said
    assert json.loads(out.read_text()).keys() == {"tiny", "start"}


def test_roofline_counts_the_products_of_the_model():
    """Against the counter of FLOPs: all products, causal attention counted whole there."""
    from model.flops import training_flops_per_token
    from training.state import build_model

    for dropout in ("none", "learned"):
        cfg = compose_config(Spec("ours", (*TINY, f"dropout={dropout}"), "float32"))
        shape = roofline.Shape.from_config(cfg)
        found = {o.name: o.flops for o in roofline.operations(shape) if o.name != "optimizer"}
        attention = sum(flops for name, flops in found.items() if "softmax" in name)
        products = sum(found.values()) - attention
        counted = training_flops_per_token(build_model(cfg)) * shape.tokens
        assert products + attention * 12 / 7 == pytest.approx(counted)
        assert shape.n_parameters == sum(p.numel() for p in build_model(cfg).parameters())


def test_roofline_takes_the_slower_of_both_limits():
    operation = roofline.Operation("x", flops=100.0, n_bytes=10.0)
    assert operation.seconds(peak=10.0, bandwidth=10.0) == 10
    assert operation.seconds(peak=1000.0, bandwidth=10.0) == 1


def test_roofline_names_a_dropout_it_does_not_know():
    cfg = compose_config(Spec("ours", (*TINY, "dropout=channel"), "float32"))
    with pytest.raises(ValueError, match="dropout=channel has no roofline"):
        roofline.Shape.from_config(cfg)


def test_start_up_reports_a_failing_command():
    with pytest.raises(RuntimeError, match="no_such_key"):
        start_up.run(["no_such_key=1"])


def test_markdown_lines_up():
    assert measure.markdown(["a", "bcd"], [["xx", "y"]]).splitlines() == [
        "| a  | bcd |",
        "| -- | --- |",
        "| xx | y   |",
    ]


def test_progress_learns_the_pace(monkeypatch, capsys):
    clock = iter([0.0, 0.0, 100.0, 200.0, 400.0])
    monkeypatch.setattr(measure.time, "monotonic", lambda: next(clock))
    progress = measure.Progress(200)
    for what, seconds in [("a", 50), ("b", 50), ("c", 100), ("late", 60)]:
        progress.begin(what, seconds)
    assert capsys.readouterr().err.splitlines() == [
        "[0:00 gone, about 3:20 left] a",
        "[1:40 gone, about 4:17 left] b",  # 120 s for 70 guessed, and 150 left
        "[3:20 gone, about 3:03 left] c",
        "[6:40 gone, about 1:54 left] late",
    ]


@pytest.mark.slow
def test_a_quick_look_leaves_the_results_alone(in_process, monkeypatch, tmp_path):
    monkeypatch.setattr(cpu, "SCALES", {"tiny": TINY})
    monkeypatch.setattr(cpu, "WORK", {"tiny": "tiny"})
    monkeypatch.setattr(cpu, "BARS", {"tiny": 1.5})
    monkeypatch.setattr(cpu, "matrix_peak", lambda device, dtype: 1e12)
    monkeypatch.setattr(cpu, "RESULTS", tmp_path / "cpu.json")
    cpu.main(["--quick", "--only", "tiny"])
    assert not (tmp_path / "cpu.json").exists()
