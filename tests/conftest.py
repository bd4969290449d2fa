"""For every test: one thread a process, and no word to the outside."""

import os
from contextlib import nullcontext

# Before anything imports torch. The tests run in several processes (make test), and shapes are tiny.
os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
os.environ |= {"HF_HUB_OFFLINE": "1", "MPLBACKEND": "Agg"}

import pytest

from ops import native


@pytest.fixture(params=["compiled", "torch"])
def way(request):
    """By the compiled kernels, and as it is where none could be compiled."""
    if request.param == "compiled" and native.library() is None:
        pytest.skip("no compiler here")
    hidden = native.without_kernels() if request.param == "torch" else nullcontext()
    with hidden:
        yield request.param
