"""The manifest of token files: what they are and what they were made of, checked at one door."""

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.errors import UserError
from common.files import StorageError, read_regular

MANIFEST = "manifest.json"
MAX_BYTES = 2**20

Count = Annotated[int, Field(ge=0)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class SplitFacts(_Facts):
    """One split: its file of tokens, and the text that they were made of.

    Attributes:
        file, tokens, sha256: the file's name, how many tokens it has, the hash of its bytes.
        bytes: UTF-8 bytes that the tokens stand for; end-of-text stands for none.
        texts, text_sha256: how many texts went into the split, and the hash over them in order,
            each after its length in bytes (8 bytes, little-endian). Where data.max_train_tokens
            cuts the tokens, the texts are still all.
    """

    file: Annotated[str, Field(pattern=r"^(train|val|test)\.bin$")]
    tokens: Count
    bytes: Count
    sha256: Digest
    texts: Count
    text_sha256: Digest


class TokenizerFacts(_Facts):
    """`BaseTokenizer.identity`."""

    name: str
    vocab_size: Annotated[int, Field(ge=2, le=2**31)]
    sha256: Digest


class SourceFacts(_Facts):
    """`Source.identity`: its kind, and what else decides the text."""

    model_config = ConfigDict(extra="allow")

    kind: str


class Recipe(_Facts):
    """All that decides the tokens; see `DataConfig` for the keys that are no more than kept."""

    model_config = ConfigDict(extra="allow")

    format: int
    source: SourceFacts
    tokenizer: TokenizerFacts
    end_of_text: bool


class Manifest(_Facts):
    """Recipe and result. `fingerprint` is the recipe's hash, the same on every machine."""

    fingerprint: Digest
    recipe: Recipe
    texts: Count
    bytes: Count
    splits: Annotated[dict[str, SplitFacts], Field(min_length=1)]
    versions: dict[str, str]
    manifest_sha256: Digest


def fingerprint(recipe: Mapping[str, Any]) -> str:
    """sha256 of all that decides the tokens."""
    return sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()


def render_manifest(facts: Mapping[str, Any]) -> bytes:
    """The manifest's bytes; its last entry is the sha256 of the others."""
    facts = {key: value for key, value in facts.items() if key != "manifest_sha256"}
    facts["manifest_sha256"] = sha256(json.dumps(facts).encode()).hexdigest()
    return (json.dumps(facts, indent=2) + "\n").encode()


def read_manifest(path: Path, remedy: str) -> Manifest:
    """The manifest at `path`, or a ValueError that names it, what is wrong, and the remedy.

    Its own hash tells damage; the rest is for one that was written by another hand.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing: {remedy}")
    try:
        content = read_regular(path, MAX_BYTES)
        facts = json.loads(content)
        whole = isinstance(facts, dict) and render_manifest(facts) == content
    except StorageError:
        raise
    except (ValueError, RecursionError):  # too long, not UTF-8, not JSON, or JSON to choke on
        whole = False
    if not whole:
        raise UserError(f"{path} was altered, it does not match its own sha256: {remedy}")
    try:
        manifest = Manifest.model_validate(facts)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])).encode("unicode_escape").decode()
        raise UserError(f"{path} is no manifest ({place}: {first['msg']}): {remedy}") from None
    if fingerprint(facts["recipe"]) != manifest.fingerprint:
        raise UserError(f"{path} is no manifest (fingerprint: not that of its recipe): {remedy}")
    return manifest
