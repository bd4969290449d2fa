"""Text from a trained model."""

import torch
from torch import Tensor

from common.errors import UserError
from data.tokenizers import open_tokenizer
from model.gpt import GPT
from training.bundle import Bundle
from training.device import Machine


def sample_text(run: Bundle, n_samples: int = 2, n_tokens: int = 100) -> list[str]:
    """Text that the model writes from nothing but an end of text, or a line break without one."""
    tokenizer = open_tokenizer(run.cfg.data.tokenizer, run.cfg.data.vocab_size)
    end = run.data.end_of_text
    start = int(tokenizer.encode("\n")[0]) if end is None else end
    run.model.eval()
    return [
        tokenizer.decode(generate(run.model, run.machine, [start], n_tokens, seed=seed))
        for seed in range(n_samples)
    ]


@torch.no_grad()
def generate(
    model: GPT,
    machine: Machine,
    prompt: list[int],
    n_tokens: int,
    *,
    temperature: float = 0.8,
    top_k: int | None = 200,
    seed: int = 0,
) -> list[int]:
    """`n_tokens` drawn one after another behind `prompt`, each given the last block_size before it.

    `temperature` 0 takes the likeliest token each time; `top_k` draws among the k likeliest. The same
    seed gives the same text on the same machine. The model must be in evaluation mode. ValueError for
    an empty prompt, a token outside the vocabulary and settings out of range.
    """
    _check(model, prompt, n_tokens, temperature, top_k)
    generator = torch.Generator(machine.device).manual_seed(seed)
    tokens = torch.tensor([prompt], device=machine.device)
    for _ in range(n_tokens):
        with machine.autocast():
            hidden = model(tokens[:, -model.cfg.block_size :]).hidden[:, -1]
            logits = model.logits(hidden).float()
        chosen = _draw(logits, temperature, top_k, generator)
        tokens = torch.cat([tokens, chosen], 1)
    return tokens[0, len(prompt) :].tolist()


def _draw(
    logits: Tensor, temperature: float, top_k: int | None, generator: torch.Generator
) -> Tensor:
    if temperature == 0:
        return logits.argmax(-1, keepdim=True)
    if top_k is not None:
        least = logits.topk(min(top_k, logits.shape[-1])).values[:, -1:]
        logits = logits.masked_fill(logits < least, float("-inf"))
    return torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)


def _check(
    model: GPT, prompt: list[int], n_tokens: int, temperature: float, top_k: int | None
) -> None:
    if not prompt:
        raise UserError("the prompt is empty: give at least one token to go on from")
    if max(prompt) >= model.cfg.vocab_size:
        raise UserError(
            f"the prompt has token {max(prompt)}, and the model knows {model.cfg.vocab_size}: "
            "encode it with the run's own tokenizer"
        )
    if n_tokens < 1:
        raise UserError(f"n_tokens={n_tokens} must be at least 1")
    if not temperature >= 0:
        raise UserError(f"temperature={temperature} must not be negative")
    if top_k is not None and top_k < 1:
        raise UserError(f"top_k={top_k} must be at least 1")
