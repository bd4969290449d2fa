"""GPT-2 with Learned Dropout, for `transformers`: its masks stay on in evaluation.

This file is copied beside exported weights and stands alone. Where GPT-2 has an `nn.Dropout`, a mask
computed from the hidden states by causal attention, a cosine and a threshold takes its place:

    A = MultiHeadCausalAttention(X),  M = cos(A + B) / 2 + 1/2,  Y = X where M >= 1/2, else 0

Training keeps these masks too, and does not change how they are computed. A mask depends on every
position before it, and so needs the whole text each time, without padding before it.
"""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

# Where in a block of GPT-2 the masks of a slot stand: behind the module of that name.
PLACES = {
    "attention_output": "attn.resid_dropout",
    "residual_attention": "attn.resid_dropout",
    "mlp_hidden": "mlp.act",
    "mlp_output": "mlp.dropout",
    "residual_mlp": "mlp.dropout",
}


class LearnedDropoutGPT2Config(GPT2Config):
    """GPT-2's, and for each slot with learned masks the arguments of its `LearnedMask`."""

    model_type = "learned_dropout_gpt2"
    learned_masks: dict[str, Any] | None = None


class Attention(nn.Module):
    """Multi-head causal attention over (B, T, width), without a projection behind it."""

    def __init__(self, width: int, n_head: int) -> None:
        super().__init__()
        self.n_head = n_head
        self.qkv = nn.Linear(width, 3 * width, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        parts = self.qkv(hidden).unflatten(-1, (3, self.n_head, -1))
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return attended.transpose(1, 2).flatten(2)


class MaskSource(Attention):
    """What precomputed masks come from; passes the embeddings on, and keeps what it made of them."""

    made: Tensor

    def __init__(self, width: int, n_head: int) -> None:
        super().__init__(width, n_head)
        self.output = nn.Linear(width, width, bias=False)

    def forward(self, embedding: Tensor) -> Tensor:
        self.made = self.output(super().forward(embedding))
        return embedding


class LearnedMask(Attention):
    """Y = X where M >= 1/2, else 0; M is computed from X, or from what the mask source made.

    With `n_harmonics` M is 1/2 + 1/2 sum_k a_k cos(k (A + B)), a = c / sum |c|.
    """

    def __init__(
        self, width: int, n_head: int, n_harmonics: int = 0, source: MaskSource | None = None
    ) -> None:
        super().__init__(width, n_head)
        self.shift = nn.Parameter(torch.zeros(width))
        self.amplitudes = nn.Parameter(torch.zeros(n_harmonics)) if n_harmonics else None
        self.sources = () if source is None else (source,)  # a tuple: not a part of this module

    def forward(self, hidden: Tensor) -> Tensor:
        source = self.sources[0].made if self.sources else hidden
        with torch.no_grad():
            phase = super().forward(source).float() + self.shift.float()
            mask = self.wave(phase) / 2 + 0.5 >= 0.5
        return hidden * mask.to(hidden.dtype)

    def wave(self, phase: Tensor) -> Tensor:
        if self.amplitudes is None:
            return torch.cos(phase)
        amplitudes = F.normalize(self.amplitudes.float(), p=1.0, dim=0)
        return sum((a * torch.cos(k * phase) for k, a in enumerate(amplitudes, 1)), phase * 0)


class LearnedDropoutGPT2(GPT2LMHeadModel):
    """GPT-2's language model with learned masks; takes whole texts, uncached and unpadded before."""

    config_class = LearnedDropoutGPT2Config

    def __init__(self, config: LearnedDropoutGPT2Config) -> None:
        super().__init__(config)
        self.masks = config.learned_masks or {}
        source = None
        if any(options["from_embedding"] for options in self.masks.values()):
            source = MaskSource(config.n_embd, config.n_head)
        self.place(self.transformer, "drop", ["embedding"], source)
        for block in self.transformer.h:
            for path in sorted(set(PLACES.values())):
                slots = [slot for slot in PLACES if PLACES[slot] == path]
                self.place(block, path, slots, source)
        self.post_init()

    def place(
        self, parent: nn.Module, path: str, slots: Iterable[str], source: MaskSource | None
    ) -> None:
        """Put the masks of these slots behind the module at `path`, and the source before them."""
        parts = OrderedDict(own=parent.get_submodule(path))
        if path == "drop" and source is not None:
            parts["source"] = source
        for slot in slots:
            if slot in self.masks:
                parts[slot] = self.mask(slot, source)
        if len(parts) > 1:
            parent.set_submodule(path, nn.Sequential(parts))

    def mask(self, slot: str, source: MaskSource | None) -> LearnedMask:
        config, options = self.config, self.masks[slot]
        width = config.n_inner if slot == "mlp_hidden" else config.n_embd
        source = source if options["from_embedding"] else None
        return LearnedMask(width, options["n_head"], options["n_harmonics"], source)

    def forward(
        self,
        input_ids: Tensor | None = None,
        past_key_values: Any = None,
        attention_mask: Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        if use_cache or (past_key_values is not None and past_key_values.get_seq_length()):
            raise ValueError("learned masks need the whole text each time: use_cache=False")
        if attention_mask is not None and not attention_mask.flatten(0, -2)[:, 0].all():
            raise ValueError("padding before a text changes its masks: padding_side='right'")
        return super().forward(input_ids, attention_mask=attention_mask, use_cache=False, **kwargs)


LearnedDropoutGPT2Config.register_for_auto_class()
LearnedDropoutGPT2.register_for_auto_class("AutoModelForCausalLM")
