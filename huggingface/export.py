"""A trained run as a directory that `transformers` loads: weights, tokenizer, model card."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from common.errors import UserError
from data.tokenizers import open_tokenizer
from dropout.fourier import FourierMap
from dropout.learned import LearnedDropout
from huggingface.card import model_card
from huggingface.tokenizer import to_transformers
from model.adapters import Adapter, merge_adapters
from model.gpt import GPT
from model.gpt2 import gpt2_config, to_gpt2
from model.mlp import DenseMLP
from model.slots import Slot
from tracking.directory import read_record
from tracking.load import LoadedRun

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

SAME = (
    1e-4  # the mean difference of logits, in their standard deviations, at which two are the same
)


def export_run(run: LoadedRun, directory: Path) -> None:
    """Write the run's model, as a `GPT2LMHeadModel` or one with learned masks, into a new directory.

    Before anything is written, its logits are compared with the run's own. ValueError where the
    directory is not empty, and for a model or a tokenizer that `transformers` cannot have.
    """
    from transformers.utils import logging

    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UserError(f"{directory} is not empty: name a new directory, or remove it first")
    ours = open_tokenizer(run.cfg.data.tokenizer, run.cfg.data.vocab_size)
    tokenizer = to_transformers(ours, run.model.cfg.block_size)
    model = to_model(run.model, ours.end_of_text)
    _check_logits(run.model, model)
    record = read_record(run.directory)
    card = model_card(run, record, is_learned=bool(learned_masks(run.model)))
    logging.disable_progress_bar()
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    (directory / "README.md").write_text(card, encoding="utf-8")


def to_model(gpt: GPT, end_of_text: int) -> "GPT2LMHeadModel":
    """The model in evaluation mode. Adapters are merged, in place."""
    from transformers import GPT2Config, GPT2LMHeadModel

    from huggingface.modeling_learned_dropout import LearnedDropoutGPT2, LearnedDropoutGPT2Config

    if not all(isinstance(block.mlp, DenseMLP) for block in gpt.blocks):
        raise UserError("model.mlp must be dense: GPT-2 has no other MLP")
    if any(isinstance(module, Adapter) for module in gpt.modules()):
        merge_adapters(gpt)
    rates = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    special = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), end_of_text)
    values = gpt2_config(gpt.cfg) | rates | special
    weights = to_gpt2(gpt.state_dict())
    weights["lm_head.weight"] = weights["transformer.wte.weight"]
    if masks := learned_masks(gpt):
        config = LearnedDropoutGPT2Config(**values, learned_masks=masks, use_cache=False)
        model = LearnedDropoutGPT2(config)
        weights |= _mask_weights(gpt)
    else:
        model = GPT2LMHeadModel(GPT2Config(**values))
    model.load_state_dict(weights)
    return model.eval()


def learned_masks(gpt: GPT) -> dict[str, dict[str, Any]]:
    """The arguments of the exported masks by slot; none where all dropouts rest in evaluation."""
    found = {}
    for slot in _filled(gpt):
        dropout = slot.dropout
        if isinstance(dropout, LearnedDropout):
            soft_map = dropout.soft_map
            found[slot.name] = {
                "n_head": dropout.n_head,
                "n_harmonics": len(soft_map.amplitudes) if isinstance(soft_map, FourierMap) else 0,
                "from_embedding": dropout.wants_mask_source,
            }
    return found


def _filled(gpt: GPT) -> list[Slot]:
    return [m for m in gpt.modules() if isinstance(m, Slot) and not m.is_empty]


def _mask_weights(gpt: GPT) -> dict[str, Tensor]:
    """The weights of learned masks, by their names in `LearnedDropoutGPT2`."""
    from huggingface.modeling_learned_dropout import PLACES

    modules: dict[str, nn.Module] = {}
    if gpt.mask_source is not None:
        modules["transformer.drop.source"] = gpt.mask_source
    for slot in _filled(gpt):
        if isinstance(slot.dropout, LearnedDropout):
            layer = slot.key.partition("/")[0].removeprefix("block")
            place = f"h.{layer}.{PLACES[slot.name]}" if slot.name in PLACES else "drop"
            modules[f"transformer.{place}.{slot.name}"] = slot.dropout
    return {
        f"{path}.{name.removeprefix('soft_map.')}": tensor
        for path, module in modules.items()
        for name, tensor in module.state_dict().items()
    }


@torch.no_grad()
def _check_logits(gpt: GPT, model: "GPT2LMHeadModel") -> None:
    """ValueError where the two differ by more than rounding."""
    n_token = min(gpt.cfg.block_size, 64)
    tokens = torch.randint(
        gpt.cfg.vocab_size, (1, n_token), generator=torch.Generator().manual_seed(0)
    )
    ours = gpt.logits(gpt(tokens).hidden)
    difference = (model(tokens).logits - ours).abs().mean() / ours.std()
    if not difference < SAME:
        kinds = sorted({type(slot.dropout).__name__ for slot in _filled(gpt)})
        raise UserError(
            f"the model cannot be a GPT-2: its logits would differ by {difference:.2g}. A dropout "
            f"that changes what passes in evaluation is the likely reason: {', '.join(kinds)}"
        )
