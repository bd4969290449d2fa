"""GPT-2's weights into a run: equal logits, any dropout, and clear refusals."""

import json
import socket
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from transformers import GPT2Config, GPT2LMHeadModel

from data.prepare import REPOSITORY
from experiments.records import Base
from model.slots import Slot
from tests.data.hub import Fault
from tracking.directory import run_hash
from tracking.load import read_base
from training.finetune import copy_base
from training.state import build_model

OWN_BLOCK = ("model.bias=true", "model.activation=gelu_tanh")


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    """A GPT-2 of tests' size with random weights, biases too, and the directory that it lies in."""
    config = GPT2Config(
        vocab_size=300, n_positions=16, n_embd=16, n_layer=2, n_head=2, bos_token_id=299,
        eos_token_id=299,
    )  # fmt: skip
    torch.manual_seed(0)
    model = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    directory = tmp_path_factory.mktemp("gpt2")
    model.save_pretrained(directory)
    return model, directory


@pytest.fixture
def started(gpt2, tiny_cfg):
    """A function from overrides to a model that starts from that GPT-2."""

    def start(*overrides):
        cfg = tiny_cfg(f"init_from=hf:{gpt2[1]}", *OWN_BLOCK, *overrides)
        model = build_model(cfg)
        with torch.no_grad():
            copy_base(model, read_base(cfg))
        return model.eval()

    return start


@torch.no_grad()
@pytest.mark.parametrize("block_size", [16, 8])
@pytest.mark.parametrize("dropout", ["none", "learned"])
def test_a_run_starts_as_the_gpt2(gpt2, started, dropout, block_size):
    model = started(f"dropout={dropout}", f"model.block_size={block_size}")
    tokens = torch.randint(300, (2, block_size), generator=torch.Generator().manual_seed(1))
    out = model(tokens, return_masks=True)
    assert all(kept.mask.all() for kept in out.masks.values())  # as learned masks start near 1
    torch.testing.assert_close(
        model.logits(out.hidden), gpt2[0](tokens).logits, atol=1e-5, rtol=1e-5
    )


def test_what_gpt2_lacks_starts_as_without_it(started, tiny_cfg):
    fresh = build_model(tiny_cfg("dropout=learned_precomputed", *OWN_BLOCK)).state_dict()
    model = started("dropout=learned_precomputed")
    own = {name for name in fresh if "dropout" in name or name.startswith("mask_source")}
    assert any(isinstance(m, Slot) and m.dropout is not None for m in model.modules())
    assert own
    for name, tensor in model.state_dict().items():
        assert (name in own) == (name.endswith("shift") or torch.equal(tensor, fresh[name]))


def test_adapters_go_around_it(gpt2, started):
    model = started("dropout=none", "adapter=lora", "adapter.layer.rank=2")
    tokens = torch.arange(16)[None]
    torch.testing.assert_close(model.logits(model(tokens).hidden), gpt2[0](tokens).logits)


def test_a_run_is_known_by_its_weights_not_by_their_place(gpt2, tiny_cfg, tmp_path):
    def identity(directory, *overrides):
        cfg = tiny_cfg(f"init_from=hf:{directory}", *OWN_BLOCK, *overrides)
        base = read_base(cfg).identity
        Base.model_validate(base)
        return base, run_hash(cfg, "data", dtype="float32", device_kind="cpu", base=base)

    model, directory = gpt2
    model.save_pretrained(tmp_path / "moved")
    assert identity(directory, "dropout=none") == identity(tmp_path / "moved", "dropout=none")
    assert identity(directory)[0] == identity(directory, "dropout=none", "seed=2")[0]
    with torch.no_grad():
        model.transformer.ln_f.bias[0] += 1
        model.save_pretrained(tmp_path / "other")
        model.transformer.ln_f.bias[0] -= 1
    assert identity(directory)[0] != identity(tmp_path / "other")[0]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ((), "give it model.activation=gelu_tanh model.bias=true$"),
        (
            (*OWN_BLOCK, "model.n_layer=3", "data.vocab_size=400"),
            "give it model.n_layer=2 data.vocab_size=300$",
        ),
        ((*OWN_BLOCK, "model.block_size=32"), "give it model.block_size=16$"),
        ((*OWN_BLOCK, "model/mlp=swiglu"), "give it .*model/mlp=dense$"),
    ],
)
def test_another_model_is_told_what_to_give(gpt2, tiny_cfg, overrides, message):
    with pytest.raises(ValueError, match=message):
        read_base(tiny_cfg(f"init_from=hf:{gpt2[1]}", "dropout=none", *overrides))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "llama"}, "model_type=llama must be gpt2"),
        ({"scale_attn_by_inverse_layer_idx": True}, "no other GPT-2 can be loaded"),
        ({"activation_function": "relu"}, "activation_function=relu must be one of"),
    ],
)
def test_another_architecture_is_refused(gpt2, tiny_cfg, tmp_path, change, message):
    config = json.loads((gpt2[1] / "config.json").read_text()) | change
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        read_base(tiny_cfg(f"init_from=hf:{tmp_path}", *OWN_BLOCK))


def test_files_that_are_missing_or_broken_are_named(gpt2, tiny_cfg, tmp_path):
    cfg = tiny_cfg(f"init_from=hf:{tmp_path}", *OWN_BLOCK)
    with pytest.raises(ValueError, match=r"has no config\.json"):
        read_base(cfg)
    (tmp_path / "config.json").write_text((gpt2[1] / "config.json").read_text())
    with pytest.raises(ValueError, match=r"has no model\.safetensors"):
        read_base(cfg)
    (tmp_path / "model.safetensors").write_bytes(b"not this")
    with pytest.raises(ValueError, match=r"model\.safetensors cannot be read"):
        read_base(cfg)


def test_without_the_hub_the_error_says_what_to_do(tiny_cfg, tmp_path):
    with pytest.raises(ValueError, match=r"hf download some/gpt2 .* init_from=hf:DIR"):
        read_base(tiny_cfg("init_from=hf:some/gpt2", *OWN_BLOCK))
    with pytest.raises(ValueError, match="is no directory here, and no name on the hub"):
        read_base(tiny_cfg(f"init_from=hf:{tmp_path}/no", *OWN_BLOCK))


@pytest.fixture
def hub_cfg(hub, gpt2, tiny_cfg, monkeypatch):
    """The config of a run from that GPT-2 on the hub."""
    hub.add_model(gpt2[1])
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", hub.waits.append)
    return tiny_cfg("init_from=hf:some/gpt2", "dropout=none", *OWN_BLOCK)


def test_weights_without_the_head_are_the_same_base(gpt2, tiny_cfg, tmp_path):
    _, directory = gpt2
    GPT2LMHeadModel.from_pretrained(directory).transformer.save_pretrained(tmp_path)
    bases = [
        read_base(tiny_cfg(f"init_from=hf:{place}", "dropout=none", *OWN_BLOCK))
        for place in (directory, tmp_path)
    ]
    assert "wte.weight" in load_file(tmp_path / "model.safetensors")  # and not transformer.wte
    assert bases[0].identity == bases[1].identity


@pytest.mark.slow
@pytest.mark.parametrize(
    "choice",
    [("dropout=standard",), ("dropout=learned",), ("dropout=none", "adapter=lora")],
    ids=lambda choice: choice[-1],
)
def test_fine_tuning_on_a_text_is_one_command(gpt2, tmp_path, choice):
    text = tmp_path / "mine.txt"
    text.write_text("\n\n".join(f"Article {n} tells of {n * n} things." for n in range(900)))
    tiny = (
        "steps=2", "batch_size=4", "micro_batch_size=2", "eval_every=1", "save_every=1",
        "model.n_layer=2", "model.n_embd=16", "model.n_head=2", "model.block_size=16",
        "data.vocab_size=300", f"data.cache_dir={tmp_path / 'cache'}", "schedule.warmup_steps=1",
        "evaluate.windows=8", "evaluate.final_windows=8", "evaluate.batch_size=4", "device=cpu",
        "tracker=none", f"runs_dir={tmp_path / 'runs'}",
    )  # fmt: skip
    command = [
        *(sys.executable, "train.py", "scale=gpt2_finetune", f"init_from=hf:{gpt2[1]}"),
        *("data=files", f"data.paths={text}", *choice, *tiny),
    ]
    outputs = []
    for _ in range(2):
        done = subprocess.run(
            command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert done.returncode == 0, done.stdout
        outputs.append(done.stdout)
    assert "step 2: train" in outputs[0]
    assert "is finished" in outputs[1] and "step 2: train" not in outputs[1]
    (path,) = tmp_path.glob("runs/*/*/*/record.json")
    record = json.loads(path.read_text())
    assert (record["status"], record["base"]["run_hash"]) == ("finished", None)


@torch.no_grad()
def test_a_model_is_taken_from_the_hub_and_then_from_the_cache(hub, hub_cfg, gpt2):
    model = build_model(hub_cfg)
    copy_base(model, read_base(hub_cfg))
    tokens = torch.arange(16)[None]
    torch.testing.assert_close(model.eval().logits(model(tokens).hidden), gpt2[0](tokens).logits)
    n_requests = len(hub.requests)
    assert hub.asked("GET /cdn/some/gpt2/resolve") == 1
    assert not hub.asked("generation_config.json")
    read_base(hub_cfg)
    assert len(hub.requests) == n_requests


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        pytest.param(
            Fault("stall"),
            r"does not give it \(ReadTimeout: .*same command again later; or, where",
            marks=pytest.mark.slow,
        ),
        (Fault("drop"), r"does not give it \(RemoteProtocolError: .*=hf:DIR$"),
        (Fault("status", 500), r"does not give it \(HfHubHTTPError.*500"),
    ],
    ids=lambda value: getattr(value, "way", ""),
)
def test_a_download_that_fails_says_what_to_do(hub, hub_cfg, monkeypatch, fault, message):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 0.05)
    hub.fault = replace(fault, after=1, of="model.safetensors")  # its head is answered
    with pytest.raises(ValueError, match=r"^init_from=hf:some/gpt2: no such directory.*" + message):
        read_base(hub_cfg)
    hub.fault = None
    read_base(hub_cfg)


def test_a_model_that_the_hub_has_not_says_what_to_do(hub, hub_cfg):
    hub.gated.add("some/gpt2")
    for name, message in {
        "hf:some/thing": "no such model, or a private one; check the name at http.*/some/thing, or",
        "hf:some/gpt2": "it is gated; ask for access at http.*/some/gpt2, then log in with `hf auth",
    }.items():
        hub_cfg.init_from = name
        with pytest.raises(ValueError, match=message):
            read_base(hub_cfg)
    assert not hub.waits


def test_a_hub_that_refuses_or_never_answers_is_given_up(hub, hub_cfg, monkeypatch):
    monkeypatch.setattr("tracking.pretrained.HUB_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for port, message in (
            (9, "refused"),
            (silent.getsockname()[1], r"no answer within 0\.2 s|out"),
        ):
            address = f"http://127.0.0.1:{port}"
            monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
            began = time.monotonic()
            with pytest.raises(ValueError, match=rf"does not give it \(.*({message}).*=hf:DIR$"):
                read_base(hub_cfg)
            assert time.monotonic() - began < 5 and not hub.waits
