"""A model card: what an exported model is, what its run measured, and whose text it read."""

from collections.abc import Mapping
from typing import Any

import yaml

from tracking.load import LoadedRun

# The licence of a source's text as the hub spells it; of any other text its owner knows.
_LICENCES = {
    "sample": "cc-by-sa-4.0",
    "wikimedia/wikipedia": "cc-by-sa-4.0",
    "Salesforce/wikitext": "cc-by-sa-3.0",
}
_USE = """\
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(PATH{trust})
    model = AutoModelForCausalLM.from_pretrained(PATH{trust})
    start = tokenizer("The city", return_tensors="pt")
    print(tokenizer.decode(model.generate(**start, max_new_tokens=40)[0]))
"""
_LEARNED = """\
Its dropout is learned: the model computes masks from its input, in evaluation too. They are in \
`modeling_learned_dropout.py`, which `trust_remote_code=True` loads; plain GPT-2 code would leave them \
out. A mask depends on all text before it, so there is no cached decoding and no padding on the left; \
both raise an error. Training it further leaves the masks as they are.
"""
_PLAIN = """\
A plain GPT-2: its dropouts do nothing in evaluation, and the rates in its config are 0.
"""
_STARTED = "Training started from a GPT-2's weights, which have a licence of their own.\n"


def model_card(run: LoadedRun, record: Mapping[str, Any], is_learned: bool) -> str:
    """Markdown with the hub's metadata above it."""
    cfg = run.cfg
    title = f"{cfg.table_name or cfg.scale}/{cfg.row_name}, seed {cfg.seed}"
    source = record.get("data", {}).get("source", cfg.data.source)
    licence = _LICENCES.get(source)
    head = {"library_name": "transformers", "pipeline_tag": "text-generation"}
    if licence is not None:
        head["license"] = licence
    parts = [
        f"---\n{yaml.safe_dump(head)}---\n",
        f"# {title}\n",
        f"A GPT of {run.model.n_parameters():,} parameters (without positions), {cfg.model.n_layer} "
        f"layers, {cfg.model.n_embd} channels, block {cfg.model.block_size}, trained with "
        f"`dropout={cfg.dropout.name}`. Weights of step {run.checkpoint.step} of {cfg.steps}.\n",
        _LEARNED if is_learned else _PLAIN,
        _USE.format(trust=", trust_remote_code=True" if is_learned else ""),
        "## Measured\n",
        _figures(run, record),
        "## Text and licence\n",
        _text(source, licence, record),
        _STARTED if (cfg.init_from or "").startswith("hf:") else "",
    ]
    return "\n".join(part for part in parts if part)


def _figures(run: LoadedRun, record: Mapping[str, Any]) -> str:
    """The record's figures of the exported checkpoint."""
    if record.get("status") != "finished":
        return "The run had not finished, and its record has no closing evaluation.\n"
    is_best = record["best"]["step"] == run.checkpoint.step
    measured = dict(record["best" if is_best else "metrics"])
    measured |= record.get("test", {}).get("best" if is_best else "final", {})
    rows = [
        f"| {split} | {measured[f'{split}/loss_nats']:.4f}{_error(measured[f'{split}/loss_stderr'])} "
        f"| {measured[f'{split}/bits_per_byte']:.4f} | {measured[f'{split}/windows']} |\n"
        for split in ("train", "val", "test")
        if f"{split}/loss_nats" in measured
    ]
    commit = (record["code"]["commit"] or "unknown")[:12]
    return (
        "| split | loss in nats a token | bits per byte | windows |\n|---|---|---|---|\n"
        + "".join(rows)
        + f"\nFrom the run's record: in {record['dtype']}, on disjoint windows, ± their standard "
        f"error; seed {record['seed']}, code of commit {commit}.\n"
    )


def _error(stderr: float | None) -> str:
    return "" if stderr is None else f" ± {stderr:.4f}"  # one window has none


def _text(source: str, licence: str | None, record: Mapping[str, Any]) -> str:
    data = record.get("data", {})
    told = f"Trained on `{source}`"
    if data:
        told += f", {data['train_tokens']:,} tokens (fingerprint `{data['fingerprint'][:12]}`)"
    if licence is None:
        return f"{told}. The licence of that text is for its owner to state.\n"
    return (
        f"{told}: text of Wikipedia's, {licence.upper()}, by the articles' contributors. "
        "The code is under the MIT licence.\n"
    )
