"""What a command's own options are read as, for argparse."""

import argparse


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} must be at least 1")
    return number


def seed(text: str) -> int:
    """A whole number that torch's generators take."""
    if not 0 <= (number := int(text)) < 2**63:
        raise argparse.ArgumentTypeError(f"{text} must be at least 0 and below 2^63")
    return number


def temperature(text: str) -> float:
    """What logits are divided by: 0, which takes the likeliest, or a number that leaves them finite."""
    if (number := float(text)) != 0 and not 1e-3 <= number <= 1e3:
        raise argparse.ArgumentTypeError(f"{text} must be 0, or from 0.001 to 1000")
    return number
