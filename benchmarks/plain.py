"""The same GPT written the way one writes it today: the bar that this project's speed is held to.

nanoGPT's model and loop (Karpathy 2022, github.com/karpathy/nanoGPT) with this project's shapes:
scaled_dot_product_attention, full logits into F.cross_entropy, autocast, fused AdamW, batches from a
memory-mapped file; learned dropout as its document gives it. It shares no code with the rest of the
repository; `load_weights` takes the other model's initial weights, so that both start from one point.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class PlainConfig:
    """The shape, as nanoGPT names it; `learned_dropout` puts LearnedDropout at each MLP's output."""

    vocab_size: int
    block_size: int
    n_layer: int
    n_head: int
    n_embd: int
    dropout: float = 0.0
    learned_dropout: bool = False
    shift_init: float = 0.0


class CausalSelfAttention(nn.Module):
    def __init__(self, cfg: PlainConfig) -> None:
        super().__init__()
        self.n_head, self.dropout = cfg.n_head, cfg.dropout
        self.c_attn = nn.Linear(cfg.n_embd, 3 * cfg.n_embd, bias=False)
        self.c_proj = nn.Linear(cfg.n_embd, cfg.n_embd, bias=False)
        self.resid_dropout = nn.Dropout(cfg.dropout)

    def forward(self, x: Tensor) -> Tensor:
        p = self.dropout if self.training else 0.0
        return self.resid_dropout(self.c_proj(attention(self.c_attn(x), self.n_head, p)))


def attention(qkv: Tensor, n_head: int, p: float = 0.0) -> Tensor:
    """Causal multi-head attention from a fused projection (B, T, 3 C) to (B, T, C)."""
    B, T, width = qkv.shape
    C = width // 3
    q, k, v = (x.view(B, T, n_head, C // n_head).transpose(1, 2) for x in qkv.split(C, dim=2))
    y = F.scaled_dot_product_attention(q, k, v, dropout_p=p, is_causal=True)
    return y.transpose(1, 2).contiguous().view(B, T, C)


class LearnedDropout(nn.Module):
    """M = cos(attention(X) + B) / 2 + 1/2; X times M rounded; the penalty mean(M^2 / 2)."""

    def __init__(self, cfg: PlainConfig) -> None:
        super().__init__()
        self.n_head = cfg.n_head
        self.c_attn = nn.Linear(cfg.n_embd, 3 * cfg.n_embd, bias=False)
        self.shift = nn.Parameter(torch.full((cfg.n_embd,), cfg.shift_init))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        M = 0.5 * torch.cos(attention(self.c_attn(x), self.n_head).float() + self.shift) + 0.5
        if self.training:
            complement = (1 - M).detach()
            rounded = torch.where(torch.rand_like(M) <= M, M + complement, M - M.detach())
        else:
            rounded = (M >= 0.5).float()
        return x * rounded.to(x.dtype), (M**2 / 2).mean()


class MLP(nn.Module):
    def __init__(self, cfg: PlainConfig) -> None:
        super().__init__()
        self.c_fc = nn.Linear(cfg.n_embd, 4 * cfg.n_embd, bias=False)
        self.gelu = nn.GELU()
        self.c_proj = nn.Linear(4 * cfg.n_embd, cfg.n_embd, bias=False)
        self.dropout = LearnedDropout(cfg) if cfg.learned_dropout else nn.Dropout(cfg.dropout)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        x = self.c_proj(self.gelu(self.c_fc(x)))
        out = self.dropout(x)
        return out if isinstance(out, tuple) else (out, None)


class Block(nn.Module):
    def __init__(self, cfg: PlainConfig) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(cfg.n_embd, bias=False)
        self.attn = CausalSelfAttention(cfg)
        self.ln_2 = nn.LayerNorm(cfg.n_embd, bias=False)
        self.mlp = MLP(cfg)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        x = x + self.attn(self.ln_1(x))
        out, penalty = self.mlp(self.ln_2(x))
        return x + out, penalty


class PlainGPT(nn.Module):
    """nanoGPT's GPT; returns the cross-entropy in nats and the penalty, a mean over the modules."""

    def __init__(self, cfg: PlainConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.wte = nn.Embedding(cfg.vocab_size, cfg.n_embd)
        self.wpe = nn.Embedding(cfg.block_size, cfg.n_embd)
        self.drop = nn.Dropout(cfg.dropout)
        self.h = nn.ModuleList(Block(cfg) for _ in range(cfg.n_layer))
        self.ln_f = nn.LayerNorm(cfg.n_embd, bias=False)
        self.lm_head = nn.Linear(cfg.n_embd, cfg.vocab_size, bias=False)
        self.wte.weight = self.lm_head.weight
        for name, weight in self.named_parameters():
            if weight.dim() >= 2:
                scale = 1 / math.sqrt(2 * cfg.n_layer) if name.endswith("c_proj.weight") else 1.0
                nn.init.normal_(weight, std=0.02 * scale)

    def forward(self, tokens: Tensor, targets: Tensor) -> tuple[Tensor, Tensor | None]:
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.drop(self.wte(tokens) + self.wpe(positions))
        penalties = []
        for block in self.h:
            x, penalty = block(x)
            if penalty is not None:
                penalties.append(penalty)
        logits = self.lm_head(self.ln_f(x))
        loss = F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.view(-1))
        return loss, torch.stack(penalties).mean() if penalties else None


RENAMED = (
    ("token_embedding.", "wte."),
    ("position_embedding.", "wpe."),
    ("blocks.", "h."),
    ("norm_attention.", "ln_1."),
    ("norm_mlp.", "ln_2."),
    ("attention.qkv.", "attn.c_attn."),
    ("attention.project.", "attn.c_proj."),
    ("mlp.expand.", "mlp.c_fc."),
    ("mlp.project.", "mlp.c_proj."),
    ("mlp.mlp_output.dropout.qkv.", "mlp.dropout.c_attn."),
    ("mlp.mlp_output.dropout.shift", "mlp.dropout.shift"),
)


def load_weights(model: PlainGPT, weights: Mapping[str, Tensor]) -> None:
    """Start from the weights of a `model.gpt.GPT`; a vocabulary padded here gets zero rows there."""
    renamed = {}
    for name, weight in weights.items():
        for ours, plain in RENAMED:
            name = name.replace(ours, plain)
        renamed["ln_f.weight" if name == "norm.weight" else name] = weight
    table = renamed["wte.weight"]
    extra = model.cfg.vocab_size - len(table)
    renamed["wte.weight"] = renamed["lm_head.weight"] = F.pad(table, (0, 0, 0, extra))
    model.load_state_dict(renamed)


class PlainTrainer:
    """nanoGPT's loop body: `step()` is one update on `batch_size` random windows of a token file.

    `tokens` is a file of uint16. `dtype` is what autocast multiplies in, `compiled` asks torch.compile.
    """

    def __init__(
        self,
        model: PlainGPT,
        tokens: Path,
        *,
        batch_size: int,
        micro_batch_size: int,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        compiled: bool = False,
        lr: float = 1e-3,
        penalty_weight: float = 0.1,
    ) -> None:
        torch.set_float32_matmul_precision("high")  # TF32 where a GPU has it, as nanoGPT sets it
        self.model = model.to(device).train()
        self.forward = torch.compile(self.model) if compiled else self.model
        self.data = np.memmap(tokens, dtype=np.uint16, mode="r")
        self.device, self.dtype = device, dtype
        self.micro_batch_size, self.n_micro_steps = micro_batch_size, batch_size // micro_batch_size
        self.penalty_weight = penalty_weight
        decayed = [p for p in self.model.parameters() if p.dim() >= 2]
        others = [p for p in self.model.parameters() if p.dim() < 2]
        groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), fused=True)

    def get_batch(self) -> tuple[Tensor, Tensor]:
        T = self.model.cfg.block_size
        starts = torch.randint(len(self.data) - T, (self.micro_batch_size,)).tolist()
        windows = [self.data[i : i + T + 1].astype(np.int64) for i in starts]
        batch = torch.from_numpy(np.stack(windows))
        if self.device == "cuda":
            batch = batch.pin_memory().to(self.device, non_blocking=True)
        return batch[:, :-1].contiguous(), batch[:, 1:].contiguous()

    def step(self) -> Tensor:
        """The mean loss of the step, in nats, without the penalty."""
        total = torch.zeros((), device=self.device)
        for _ in range(self.n_micro_steps):
            tokens, targets = self.get_batch()
            with torch.autocast(self.device, self.dtype, enabled=self.dtype != torch.float32):
                loss, penalty = self.forward(tokens, targets)
            total += loss.detach() / self.n_micro_steps
            if penalty is not None:
                loss = loss + self.penalty_weight * penalty
            (loss / self.n_micro_steps).backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return total
