"""What a person may say about the data, checked before anything is read."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from common.errors import UserError
from data.tokenizers import open_tokenizer

Texts = tuple[str, ...]


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise UserError("a text")
    return value


def _any_text(value: Any) -> str:
    if not isinstance(value, str):
        raise UserError("a text")
    return value


def _texts(value: Any) -> Texts:
    values = [value] if isinstance(value, str) else value
    if isinstance(values, Mapping) or not hasattr(values, "__iter__"):
        raise UserError("a list of texts")
    checked = tuple(values)
    if not checked or not all(isinstance(item, str) and item for item in checked):
        raise UserError("a list of texts, at least one")
    return checked


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UserError("a whole number, at least 1")
    return value


def _fraction(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise UserError("a number in [0, 1)")
    return float(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise UserError("true or false")
    return value


# The rule of each field; fields whose default is None may also be null.
_RULES = {
    "source": _text,
    "repo": _text,
    "subset": _text,
    "revision": _text,
    "hub_split": _text,
    "article_start": _text,
    "paths": _texts,
    "text_field": _text,
    "topic_field": _text,
    "topics": _texts,
    "split": _text,
    "split_salt": _any_text,
    "val_fraction": _fraction,
    "test_fraction": _fraction,
    "end_of_text": _flag,
    "max_bytes": _count,
    "max_train_tokens": _count,
    "tokenizer": _text,
    "vocab_size": _count,
    "cache_dir": _text,
    "num_proc": _count,
}


@dataclass(frozen=True)
class DataConfig:
    """The `data` group. Each field is the config key of that name.

    Source:
        source: `sample` (embedded), `hub` (repo, subset, revision, hub_split) or `files` (paths).
        article_start: regular expression of the row that begins an article, for corpora stored
            line by line; null where each row is an article.
        text_field: where a record keeps its text, or its list of numbers (tokenizer `numbers`).
        topics, topic_field: keep only the records whose topic is one of these; null keeps all.
        max_bytes: stop after so many bytes of UTF-8 text; null reads all.

    Split:
        split: `articles` puts every article by its hash into train, val or test; `characters`
            cuts the whole text once, train before val, as the published runs did (no test).
        split_salt: put before a text when it is hashed: another salt deals out other splits.
        val_fraction, test_fraction: shares of the articles, or of the characters.
        end_of_text: end every article with that token; without it, with a blank line.
        max_train_tokens: keep only so many training tokens; val and test stay whole.

    Tokens:
        tokenizer, vocab_size: a module of `data.tokenizers`, and how many tokens it has.
        cache_dir: where token files are kept; a relative one lies below the repository.
        num_proc: cores that tokenise; null takes all that this process may use.
    """

    source: str
    repo: str | None = None
    subset: str | None = None
    revision: str | None = None
    hub_split: str = "train"
    article_start: str | None = None
    paths: Texts | None = None
    text_field: str = "text"
    topic_field: str = "topic"
    topics: Texts | None = None
    split: str = "articles"
    split_salt: str = ""
    val_fraction: float = 0.1
    test_fraction: float = 0.1
    end_of_text: bool = True
    max_bytes: int | None = None
    max_train_tokens: int | None = None
    tokenizer: str = "gpt2"
    vocab_size: int = 50257
    cache_dir: str = ".cache/tokens"
    num_proc: int | None = None

    @classmethod
    def from_mapping(cls, cfg: Mapping[str, Any]) -> "DataConfig":
        """The checked config. ValueError for an unknown key or a value that breaks its rule."""
        defaults = {field.name: field.default for field in fields(cls)}
        unknown = sorted(set(cfg) - set(defaults))
        if unknown:
            raise UserError(f"data.{unknown[0]} is no option; there are {', '.join(defaults)}")
        if "source" not in cfg:
            raise UserError("data.source is missing: choose sample, hub or files")
        values: dict[str, Any] = {}
        for name, value in cfg.items():
            if value is None and defaults[name] is None:
                continue
            try:
                values[name] = _RULES[name](value)
            except ValueError as rule:
                raise UserError(f"data.{name}={value} must be {rule}") from None
        return cls(**values)

    def __post_init__(self) -> None:
        _check_choice("split", self.split, ("articles", "characters"))
        if self.val_fraction + self.test_fraction >= 1:
            raise UserError(
                f"data.val_fraction={self.val_fraction} and data.test_fraction="
                f"{self.test_fraction} must leave something to train on: their sum must be below 1"
            )
        if self.split == "characters" and self.test_fraction:
            raise UserError(
                f"data.test_fraction={self.test_fraction} must be 0 with data.split=characters: "
                "one cut gives train and val; choose data/cut=published, or data.split=articles"
            )

        self._check_tokenizer()

    def _check_tokenizer(self) -> None:
        if open_tokenizer(self.tokenizer, self.vocab_size).divisible:
            return
        for key, whole in (("max_bytes", None), ("split", "articles")):
            if getattr(self, key) != whole:
                raise UserError(
                    f"data.{key}={getattr(self, key)} must be {whole or 'null'} with "
                    f"data.tokenizer={self.tokenizer}: its texts can't be cut anywhere"
                )

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that are made, in the order train, val, test."""
        return (
            "train",
            *(["val"] if self.val_fraction else []),
            *(["test"] if self.test_fraction else []),
        )


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UserError(f"data.{name}={value} must be one of {', '.join(choices)}")
