"""The demo's sentence and picture, from synthetic records."""

import json

from experiments.demo import main


def test_it_says_what_is_seen_and_that_n_is_1(make_record, tmp_path, capsys):
    falling = [{"step": step, "val/loss_nats": loss} for step, loss in ((10, 5.0), (20, 4.0))]
    rising = [*falling, {"step": 30, "val/loss_nats": 4.5}]
    falling = [*falling, {"step": 30, "val/loss_nats": 3.9}]
    for row, curve in (("none", rising), ("standard_0.2", falling)):
        folder = tmp_path / "runs" / row
        folder.mkdir(parents=True)
        record = make_record(row, 1, curve[-1]["val/loss_nats"], 2.0, curve=curve)
        (folder / "seed1.json").write_text(json.dumps(record))
    assert main(["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    said, picture = capsys.readouterr().out.splitlines()
    assert "3.90 with standard_0.2 (its lowest), 4.50 with none (0.50 above its lowest" in said
    assert "n = 1 for each row, which supports no order of them" in said
    assert picture == f"picture: {tmp_path / 'out' / 'runs_curves.svg'}"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["runs_curves.svg"]


def test_without_a_finished_run_it_says_what_makes_them(make_record, tmp_path, capsys):
    folder = tmp_path / "none"
    folder.mkdir()
    record = make_record("none", 1, 0, 0, status="failed", metrics=None)
    (folder / "seed1.json").write_text(json.dumps(record))
    assert main(["--runs", str(tmp_path)]) == 2
    assert "no finished run: `make demo` makes them" in capsys.readouterr().err
