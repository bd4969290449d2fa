"""A CPU with AMX, or what stands in for one."""

import ctypes

import pytest
import torch

from ops import native

DTYPES = (torch.float32, torch.bfloat16)


def promised(gradient, x, out, rows, outputs, inputs, stride, x_stride, add, threads):
    """What `weight_gradient_bfloat16` says of itself, in float64, over the memory it is handed."""
    assert threads == torch.get_num_threads()
    if not rows or not outputs or not inputs:
        return 0

    def matrix(address, columns, stride):
        numbers = (ctypes.c_uint16 * ((rows - 1) * stride + columns)).from_address(address)
        flat = torch.frombuffer(numbers, dtype=torch.bfloat16)
        return flat.as_strided((rows, columns), (stride, 1)).double()

    sums = (ctypes.c_float * (outputs * inputs)).from_address(out)
    sums = torch.frombuffer(sums, dtype=torch.float32).view(outputs, inputs)
    product = matrix(gradient, outputs, stride).T @ matrix(x, inputs, x_stride)
    sums.copy_(sums + product if add else product)
    return 0


@pytest.fixture
def amx(monkeypatch):
    """The kernel, or what it promises where the CPU has no AMX."""
    if not native.multiplies_in(torch.bfloat16):
        compiled, ours = native.function, ("weight_gradient", torch.bfloat16)
        monkeypatch.setattr(native, "multiplies_in", lambda dtype: dtype in DTYPES)
        monkeypatch.setattr(
            native, "function", lambda *which: promised if which == ours else compiled(*which)
        )
