"""A run as transformers loads it: equal logits, equal text, equal tokens."""

import json
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2LMHeadModel

import export
from data.tokenizers import open_tokenizer
from huggingface.card import model_card
from huggingface.export import export_run
from huggingface.tokenizer import to_transformers
from tests.huggingface.conftest import logits_of
from training.sample import generate

PLAIN = {
    "standard, GPT-2's own block": (
        "dropout=standard", "model.bias=true", "model.activation=gelu_tanh",
    ),
    "a narrow MLP, bytes": (
        "dropout=none", "model.mlp_ratio=1.5", "data.tokenizer=bytes", "data.vocab_size=257",
    ),
}  # fmt: skip
LEARNED = {
    "precomputed": ("dropout=learned_precomputed",),
    "at every slot": (
        "dropout=learned_fourier", "dropout.shift_init=1.5", *(
            f"dropout/slot@dropout.{slot}=learned"
            for slot in (
                "embedding", "mlp_hidden", "residual_attention", "attention_output", "residual_mlp",
            )
        ),
    ),
}  # fmt: skip
TEXTS = ["The city of", " don't\n\n naïve 日本語 \x00 12345   x", "a<|endoftext|>b", " " * 30, ""]


def load(directory):
    model = AutoModelForCausalLM.from_pretrained(directory, trust_remote_code=True).eval()
    return model, AutoTokenizer.from_pretrained(directory, trust_remote_code=True)


@pytest.mark.parametrize("overrides", [*PLAIN.values(), *LEARNED.values()], ids=[*PLAIN, *LEARNED])
@torch.no_grad()
def test_an_exported_run_computes_and_writes_the_same(make_run, tmp_path, overrides):
    run = make_run(*overrides)
    export_run(run, tmp_path / "out")
    model, tokenizer = load(tmp_path / "out")
    assert (type(model) is GPT2LMHeadModel) == (overrides in PLAIN.values())
    tokens = torch.randint(257, (3, 16), generator=torch.Generator().manual_seed(1))
    expected = logits_of(run, tokens)
    torch.testing.assert_close(model(tokens).logits, expected, atol=1e-5, rtol=1e-5)

    prompt = tokenizer("The", return_tensors="pt")
    length = prompt["input_ids"].shape[1]
    written = model.generate(**prompt, max_length=16, do_sample=False, eos_token_id=None)[0]
    ours = generate(run.model, run.machine, written[:length].tolist(), 16 - length, temperature=0.0)
    assert written[length:].tolist() == ours


@pytest.mark.parametrize(("name", "size"), [("gpt2", 300), ("gpt2", 1024), ("bytes", 257)])
def test_an_exported_tokenizer_is_the_runs(tmp_path, name, size):
    ours = open_tokenizer(name, size)
    to_transformers(ours, 16).save_pretrained(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert (len(theirs), theirs.eos_token_id) == (size, ours.end_of_text)
    for text in TEXTS:
        tokens = ours.encode(text).tolist()
        assert theirs(text)["input_ids"] == tokens
        assert theirs.decode(tokens) == ours.decode(tokens) == text


@pytest.mark.slow
def test_the_whole_vocabulary_of_gpt2_is_the_runs():
    ours = open_tokenizer("gpt2", 50257)
    theirs = to_transformers(ours, 16)
    text = " ".join(ours.decode([token]) for token in range(50256))
    assert theirs(text)["input_ids"] == ours.encode(text).tolist()


def test_adapters_are_merged(make_run, tmp_path):
    run = make_run("dropout=none", "adapter=lora", "adapter.layer.rank=2", "init_from=elsewhere")
    tokens = torch.arange(16)[None]
    expected = logits_of(run, tokens)
    export_run(run, tmp_path / "out")
    model, _ = load(tmp_path / "out")
    torch.testing.assert_close(model(tokens).logits, expected, atol=1e-5, rtol=1e-5)


def test_learned_masks_are_not_lost_where_they_would_change(make_run, tmp_path):
    export_run(make_run("dropout=learned"), tmp_path / "out")
    model, _ = load(tmp_path / "out")
    tokens = torch.arange(8)[None]
    with pytest.raises(ValueError, match="use_cache=False"):
        model(tokens, use_cache=True)
    with pytest.raises(ValueError, match="padding_side='right'"):
        model(tokens, attention_mask=torch.tensor([[0, 1, 1, 1, 1, 1, 1, 1]]))
    with pytest.raises(ValueError, match=r"does not recognize this architecture|trust_remote_code"):
        AutoModelForCausalLM.from_pretrained(tmp_path / "out", trust_remote_code=False)


@torch.no_grad()
def test_padding_behind_a_text_changes_no_learned_mask(make_run, tmp_path):
    export_run(make_run("dropout=learned"), tmp_path / "out")
    model, _ = load(tmp_path / "out")
    tokens = torch.arange(8)[None]
    mask = torch.tensor([[1, 1, 1, 1, 1, 0, 0, 0]])
    padded = model(tokens, attention_mask=mask).logits[:, :5]
    torch.testing.assert_close(padded, model(tokens[:, :5]).logits)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("model=modern",), "model.mlp must be dense"),
        (("model.positions=rotary",), "model.positions=rotary is no part of GPT-2"),
        (("model.activation=selu",), "model.activation=selu must be one of"),
        (("dropout/slot@dropout.mlp_output=classic",), "logits would differ .* ClassicDropout"),
        (("data.tokenizer=numbers",), "data.tokenizer=numbers must be one of gpt2, bytes"),
    ],
)
def test_what_gpt2_cannot_be_is_refused_and_nothing_written(make_run, tmp_path, overrides, message):
    run = make_run("dropout=none", *overrides)
    with pytest.raises(ValueError, match=message):
        export_run(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_card_has_the_records_figures_of_the_exported_weights(make_run, tmp_path):
    run = make_run("dropout=none")
    split = {"loss_nats": 3.25, "loss_stderr": 0.01, "bits_per_byte": 2.5, "windows": 8}
    record = {
        "status": "finished", "seed": 1, "dtype": "bfloat16",
        "code": {"commit": "ab" * 20, "files": {}},
        "data": {"source": "sample", "train_tokens": 20000, "fingerprint": "cd" * 32},
        "best": {"step": 0} | {f"val/{name}": value for name, value in split.items()},
        "metrics": {"val/loss_nats": 9.0},
    }  # fmt: skip
    (run.directory / "record.json").write_text(json.dumps(record))
    export_run(run, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "license: cc-by-sa-4.0" in card
    assert "| val | 3.2500 ± 0.0100 | 2.5000 | 8 |" in card
    assert "20,000 tokens" in card


UNFINISHED = {
    "status": "interrupted", "time_s": 1.0, "code": {"commit": None, "files": {}},
    "metrics": None, "best": {"step": 0, "val/loss_nats": 3.0},
    "data": {"source": "sample", "train_tokens": 20000, "fingerprint": "cd" * 32},
}  # fmt: skip


def test_the_card_of_an_unfinished_run_says_so(make_run, tmp_path):
    run = make_run("dropout=none")
    (run.directory / "record.json").write_text(json.dumps(UNFINISHED))
    export_run(run, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "The run had not finished, and its record has no closing evaluation." in card


def test_the_card_has_no_standard_error_of_one_window(make_run):
    run = make_run("dropout=none")
    split = {"loss_nats": 3.25, "loss_stderr": None, "bits_per_byte": 2.5, "windows": 1}
    best = {"step": 0} | {f"val/{name}": value for name, value in split.items()}
    record = UNFINISHED | {"status": "finished", "seed": 1, "dtype": "bfloat16", "best": best}
    card = model_card(run, record, is_learned=False)
    assert "| val | 3.2500 | 2.5000 | 1 |" in card


def test_the_command_writes_a_new_directory_alone(make_run, tmp_path, monkeypatch, capsys):
    run, out = make_run("dropout=none"), tmp_path / "out"
    command = ["export.py", "--run", str(run.directory), "--to", "hf", str(out)]
    monkeypatch.setattr(sys, "argv", command)
    export.main()
    assert capsys.readouterr().out == f"{out}\n"
    with pytest.raises(ValueError, match="is not empty: name a new directory"):
        export.main()
