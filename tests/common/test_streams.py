from itertools import product

import torch

from common.streams import generator, stream_seed


def test_seeds_are_these_on_every_machine():
    assert stream_seed(1, "batches", 0) == 0x29A0C1C1E31C11C6
    assert stream_seed(1, "batches") == stream_seed(1, "batches", 0)


def test_each_seed_purpose_and_step_has_its_own():
    seeds = [
        stream_seed(seed, purpose, step)
        for seed, purpose, step in product(range(11), ["batches", "dropout", "1"], range(11))
    ]
    assert len(set(seeds)) == len(seeds)


def test_fits_a_signed_64_bit_integer():
    assert all(0 <= stream_seed(seed, "any") < 2**63 for seed in range(200))
    assert max(stream_seed(seed, "any") for seed in range(200)) > 2**62


def test_a_generator_starts_its_stream_anew_each_time():
    first, again, other = (
        torch.rand(4, generator=generator(*stream))
        for stream in ((1, "weights", 2), (1, "weights", 2), (1, "weights", 3))
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
