"""A run's tokenizer as one of `transformers`: the same tokens for every text."""

from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from common.errors import UserError
from data.tokenizers.base import END_OF_TEXT, BaseTokenizer

if TYPE_CHECKING:
    from transformers import GPT2Tokenizer

_NAMES = ("gpt2", "bytes")


def to_transformers(tokenizer: BaseTokenizer, max_length: int) -> "GPT2Tokenizer":
    """ValueError for a tokenizer that `transformers` cannot have.

    The name of end-of-text in a text is ordinary text, as it is here: `eos_token_id` is the token.
    """
    from transformers import GPT2Tokenizer

    if tokenizer.name not in _NAMES:
        raise UserError(
            f"data.tokenizer={tokenizer.name} must be one of {', '.join(_NAMES)} for --to hf: "
            "transformers has no tokenizer like it"
        )
    tokens = _token_bytes(tokenizer)
    spelled = [_spell(token) for token in tokens]
    return GPT2Tokenizer(
        vocab={**{text: rank for rank, text in enumerate(spelled)}, END_OF_TEXT: len(tokens)},
        merges=_merges(tokens),
        split_special_tokens=True,
        clean_up_tokenization_spaces=False,
        model_max_length=max_length,
    )


def _token_bytes(tokenizer: Any) -> list[bytes]:
    """What each token but end-of-text stands for, by rank."""
    if tokenizer.name == "bytes":
        return [bytes([value]) for value in range(tokenizer.end_of_text)]
    decode = tokenizer.encoding.decode_single_token_bytes
    return [decode(rank) for rank in range(tokenizer.end_of_text)]


def _merges(tokens: list[bytes]) -> list[tuple[str, str]]:
    """The pair that each token longer than a byte is made of, by rank.

    It is the pair that is left when a token is encoded by the ranks below its own.
    """
    ranks = {token: rank for rank, token in enumerate(tokens)}
    pairs = []
    for rank, token in enumerate(tokens):
        if len(token) == 1:
            continue
        parts = [bytes([value]) for value in token]
        while len(parts) > 2:
            joined = [ranks.get(a + b, rank) for a, b in pairwise(parts)]
            first = joined.index(min(joined))
            parts[first : first + 2] = [parts[first] + parts[first + 1]]
        pairs.append((_spell(parts[0]), _spell(parts[1])))
    return pairs


def _spell(token: bytes) -> str:
    """Bytes as GPT-2's files write them, each a visible character."""
    characters = _characters()
    return "".join(characters[value] for value in token)


@cache
def _characters() -> dict[int, str]:
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    return bytes_to_unicode()
