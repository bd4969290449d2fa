"""Handwritten digits as records of numbers: `python -m data.digits OUT.jsonl`, with the extra `digits`.

One line an image of scikit-learn's 1,797, {"text": [its pixels, row by row], "topic": its digit}: 63
pixels of 17 levels, for the first of the 64 is empty in every image. With the end-of-text token an
image is 64 tokens, so that with `model.block_size=64 sampling=epochs` a window is an image:

    python train.py data=files data.paths=OUT.jsonl data.tokenizer=numbers data.vocab_size=18 \
        sampling=epochs
"""

import sys
from collections.abc import Iterator
from typing import Any

from data.json_lines import write_lines


def records() -> Iterator[dict[str, Any]]:
    """Every image, in scikit-learn's order."""
    from sklearn.datasets import load_digits

    pixels, digits = load_digits(return_X_y=True)
    assert not pixels[:, 0].any()
    for image, digit in zip(pixels[:, 1:].astype(int).tolist(), digits.tolist(), strict=True):
        yield {"text": image, "topic": str(digit)}


def main() -> int:
    """Write the file that the one argument names; 0, or 2 without it or without scikit-learn."""
    return write_lines("digits", records, "images")


if __name__ == "__main__":
    sys.exit(main())
