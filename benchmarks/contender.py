"""One implementation in a process of its own, taking steps when it is told to.

    with Contender(Spec("ours", ("scale=nano",))) as ours, Contender(Spec("plain", ...)) as plain:
        ours.steps(3), plain.steps(3)

Processes keep the implementations' memory, allocators and compiled graphs apart, and let them take
turns under one load of the machine. The other end of the pipe is `python -m benchmarks.contender`: it
reads a line of JSON with a number of steps, and answers with their times.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from omegaconf import DictConfig
    from torch import nn

REPOSITORY = Path(__file__).resolve().parents[1]
N_TOKENS = 1_000_000


@dataclass(frozen=True)
class Spec:
    """What to build; `overrides` are those of `train.py`, from which plain takes its shape too.

    `vocab_multiple` pads plain's vocabulary, as nanoGPT advises on a GPU; ours needs no telling.
    `keeps_memory` gives plain this project's setting of the C library's allocator, which on a CPU is
    worth more than most of its code; without it plain runs as one writes it. `kernels=False` hides the
    compiler from ours, as on a machine without one.
    """

    kind: str  # ours or plain
    overrides: tuple[str, ...]
    dtype: str = "auto"
    compiled: bool = False
    device: str = "auto"
    vocab_multiple: int = 1
    keeps_memory: bool = False
    kernels: bool = True

    @property
    def settings(self) -> str:
        return f"{'compiled' if self.compiled else 'eager'} {self.dtype}"


class Contender:
    """A process that holds one implementation, ended with the `with` block.

    `facts` are its device, dtype, FLOPs a token, tokens a step and threads. RuntimeError where the
    process ends by itself; what it said stands on stderr.
    """

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.contender", json.dumps(asdict(spec))],
            cwd=REPOSITORY,
            env=os.environ | ({} if spec.kernels else {"CXX": "none"}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.facts: dict[str, Any] = self._read()

    def __enter__(self) -> Contender:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def steps(self, n: int) -> list[float]:
        """The times of `n` further steps, in seconds."""
        return self._ask(n)["times_s"]

    def losses(self, n: int) -> list[float]:
        """The losses of `n` further steps, in nats, before each update."""
        return self._ask(n)["losses_nats"]

    def working_bytes(self) -> int:
        """Highest memory so far above parameters and the optimizer's state."""
        return self._ask(0)["working_bytes"]

    def _ask(self, n: int) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{n}\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            self.close()
            raise RuntimeError(f"{self.spec} ended with exit code {code}")
        return json.loads(line)


@dataclass
class Built:
    """An implementation ready to step; `step` returns its loss."""

    step: Callable[[], torch.Tensor]
    model: nn.Module
    optimizer: Any  # as torch has them
    device: str
    dtype: str


def compose_config(spec: Spec) -> DictConfig:
    """The config that `train.py` would run with."""
    from hydra import compose, initialize_config_dir

    from cli.config import register_schema

    register_schema()
    own = (f"dtype={spec.dtype}", f"device={spec.device}", f"compile={str(spec.compiled).lower()}")
    with initialize_config_dir(str(REPOSITORY / "configs"), version_base="1.3"):
        return compose("train", overrides=[*spec.overrides, *own, "tracker=none"])


def random_tokens(directory: Path, vocab_size: int) -> Any:
    """Token data of random tokens: what they say does not matter to the clock."""
    import numpy as np

    from data.manifest import Manifest, Recipe, SplitFacts, TokenizerFacts
    from data.tokens import TokenData

    tokens = np.random.default_rng(0).integers(vocab_size, size=N_TOKENS, dtype=np.uint16)
    tokens.tofile(directory / "tokens.bin")
    split = SplitFacts.model_construct(file="tokens.bin", tokens=N_TOKENS)
    words = TokenizerFacts.model_construct(vocab_size=vocab_size)
    recipe = Recipe.model_construct(tokenizer=words, end_of_text=False)
    splits = {"train": split, "val": split}
    facts = Manifest.model_construct(fingerprint="random", recipe=recipe, splits=splits)
    return TokenData(directory, facts)


def build_ours(cfg: DictConfig, directory: Path) -> Built:
    """This repository's training step, as `train.py` takes it."""
    from training.state import TrainState
    from training.step import train_step

    state = TrainState.build(cfg, data=random_tokens(directory, cfg.model.vocab_size))

    def step() -> Any:
        return train_step(state)["train/batch_loss_nats"]

    machine = state.machine
    return Built(step, state.model, state.optimizer, machine.device.type, machine.dtype_name)


def build_plain(cfg: DictConfig, directory: Path, spec: Spec) -> Built:
    """`benchmarks.plain` in the config's shape, from the same initial weights."""
    from benchmarks.plain import PlainConfig, PlainGPT, PlainTrainer, load_weights
    from training.device import choose_machine, keep_freed_memory
    from training.state import build_model

    names = ("vocab_size", "block_size", "n_layer", "n_head", "n_embd")
    shape = {name: cfg.model[name] for name in names}
    shape["vocab_size"] += -shape["vocab_size"] % spec.vocab_multiple
    learned = cfg.dropout.name == "learned"
    p = cfg.dropout.p if cfg.dropout.name == "standard" else 0.0
    model = PlainGPT(PlainConfig(**shape, dropout=p, learned_dropout=learned))
    load_weights(model, build_model(cfg).state_dict())
    random_tokens(directory, cfg.model.vocab_size)
    machine = choose_machine(cfg.device, cfg.dtype)
    if spec.keeps_memory:
        keep_freed_memory()
    trainer = PlainTrainer(
        model,
        directory / "tokens.bin",
        batch_size=cfg.batch_size,
        micro_batch_size=cfg.micro_batch_size,
        device=machine.device.type,
        dtype=machine.dtype,
        compiled=cfg.compile,
        lr=cfg.optimizer.lr,
    )
    return Built(trainer.step, model, trainer.optimizer, trainer.device, machine.dtype_name)


class Stepper:
    """One implementation in this process: what `Contender` talks to at the other end."""

    def __init__(self, spec: Spec, directory: Path) -> None:
        cfg = compose_config(spec)  # before torch: a mistake in it shows at once

        import torch

        from model.flops import training_flops_per_token
        from training.state import build_model

        flops = training_flops_per_token(build_model(cfg))
        if spec.kind == "ours":
            self.built = build_ours(cfg, directory)
        else:
            self.built = build_plain(cfg, directory, spec)
        self.facts = {
            "device": self.built.device,
            "dtype": self.built.dtype,
            "flops_per_token": flops,
            "tokens_per_step": cfg.batch_size * cfg.model.block_size,
            "micro_batch_size": cfg.micro_batch_size,
            "threads": torch.get_num_threads(),
        }
        self._at_rest = memory_bytes(self.built.device, peak=False)

    def reply(self, n: int) -> dict[str, Any]:
        """Take `n` steps; their times and losses, and the working memory so far."""
        steps = [self._timed_step() for _ in range(n)]
        states = self.built.optimizer.state.values()
        state = sum(tensor.nbytes for tensors in states for tensor in tensors.values())
        return {
            "times_s": [seconds for seconds, _ in steps],
            "losses_nats": [loss for _, loss in steps],
            "working_bytes": memory_bytes(self.built.device, peak=True) - self._at_rest - state,
        }

    def _timed_step(self) -> tuple[float, float]:
        start = time.perf_counter()
        loss = self.built.step().item()  # waits for the loss, not for the optimizer's last kernels
        if self.built.device == "cuda":
            import torch

            torch.cuda.synchronize()
        return time.perf_counter() - start, loss


def serve(spec: Spec, directory: Path) -> None:
    """Tell the facts, then step as often as each line of stdin says, until it ends."""
    stepper = Stepper(spec, directory)
    print(json.dumps(stepper.facts), flush=True)
    for line in sys.stdin:
        print(json.dumps(stepper.reply(int(line))), flush=True)


def memory_bytes(device: str, peak: bool) -> int:
    """Memory in use now, or at its highest: allocated on a GPU, resident in the process on Linux."""
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated() if peak else torch.cuda.memory_allocated()
    field = "VmHWM:" if peak else "VmRSS:"
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


if __name__ == "__main__":
    values = json.loads(sys.argv[1])
    with tempfile.TemporaryDirectory() as scratch:
        serve(Spec(**values | {"overrides": tuple(values["overrides"])}), Path(scratch))
