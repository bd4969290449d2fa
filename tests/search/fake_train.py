"""A run in small, as `train.py` leaves it: its loss is a function of the overrides, known beforehand.

`python fake_train.py KEY=VALUE...`; `ends` (with an exit code) and `pace_s` are its own keys.
"""

import hashlib
import json
import math
import signal
import sys
import time
from pathlib import Path

EVERY = 10


def lowest(given: dict[str, str]) -> float:
    """The loss of the best checkpoint: lowest at a rate of 1e-3 and a decay of 1."""
    rate, decay = float(given["optimizer.lr"]), float(given.get("optimizer.weight_decay", 1))
    away = abs(math.log10(rate) + 3) + abs(math.log10(decay))
    return 3 + away + int(given["seed"]) / 100


def main() -> int:
    given = dict(word.split("=", 1) for word in sys.argv[1:])
    stops: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stops.append(number))
    signal.signal(signal.SIGINT, lambda number, _: stops.append(number))
    names = json.dumps({k: v for k, v in given.items() if k != "pace_s"}, sort_keys=True)
    name = f"seed{given['seed']}-{hashlib.sha256(names.encode()).hexdigest()[:8]}"
    directory = Path(given["runs_dir"], given["table_name"], "row", name)
    directory.mkdir(parents=True, exist_ok=True)
    print(f"run directory: {directory}", flush=True)
    if (directory / "summary.json").exists():
        print("this run is finished")
        return 0
    if "ends" in given:
        print(f"error: this one ends with {given['ends']}")
        return int(given["ends"])
    (directory / "config.yaml").write_text("steps: 100\n")
    metrics = directory / "metrics.jsonl"
    begin = len(metrics.read_text().splitlines()) if metrics.exists() else 0
    with metrics.open("a") as file:
        for i in range(begin, 100 // EVERY + 1):
            if stops:
                return 75
            loss = lowest(given) + 1 - i * EVERY / 100
            print(json.dumps({"step": i * EVERY, "val/loss_nats": loss}), file=file, flush=True)
            time.sleep(float(given.get("pace_s", 0)))
    summary = {"row": "row", "seed": int(given["seed"]), "metrics": {"val/loss_nats": 9.0},
               "best": {"step": 100, "val/loss_nats": lowest(given)}}  # fmt: skip
    (directory / "summary.json").write_text(json.dumps(summary))
    return 0


if __name__ == "__main__":
    sys.exit(main())
