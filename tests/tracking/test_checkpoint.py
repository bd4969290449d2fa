"""Checkpoints come back bit for bit, or are refused by name; a crash never costs the one before."""

import json
import logging
import os
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from torch import Tensor

from tracking.checkpoint import (
    FACTS,
    KEPT,
    MANIFEST,
    TENSORS,
    CheckpointError,
    best_checkpoint,
    checkpoint_name,
    latest_checkpoint,
    read_checkpoint,
    write_checkpoint,
)

DTYPES = [torch.float32, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool]


def save(directory: Path, step: int, kind: str = "last") -> Path:
    tensors = {"weight": torch.full((3, 2), float(step)), "step": torch.tensor(step)}
    return write_checkpoint(directory, checkpoint_name(kind, step), tensors, {"step": step})


def bits(tensor: Tensor) -> bytes:
    return bytes(tensor.contiguous().flatten().view(torch.uint8).tolist())


@pytest.mark.parametrize("dtype", DTYPES)
def test_tensors_come_back_bit_for_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    # Random bits hold NaNs with payloads, infinities and subnormals.
    raw = torch.randint(0, 2 if dtype == torch.bool else 256, (6, 8), generator=generator)
    matrix = raw.to(torch.uint8).view(dtype)
    tensors = {
        "matrix": matrix,
        "transposed": matrix.t(),
        "slice": matrix[1:3],
        "empty": matrix[:0],
        "scalar": matrix[0, 0],
    }
    path = write_checkpoint(tmp_path, "last-00000001", tensors, {"step": 1})
    loaded = read_checkpoint(path).tensors
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert (loaded[name].shape, loaded[name].dtype) == (tensor.shape, tensor.dtype)
        assert bits(loaded[name]) == bits(tensor), name


def test_the_tensor_file_is_plain_safetensors(tmp_path: Path) -> None:
    """Any tool that reads safetensors reads ours."""
    with safe_open(save(tmp_path, 7) / TENSORS, framework="np") as file:
        assert file.get_tensor("weight").tolist() == [[7.0, 7.0]] * 3


def test_tied_tensors_come_back_equal_and_apart(tmp_path: Path) -> None:
    weight = torch.nn.Parameter(torch.randn(4, 4))
    tensors = {"embedding": weight, "head": weight, "row": weight[2]}
    loaded = read_checkpoint(
        write_checkpoint(tmp_path, "last-00000001", tensors, {"step": 1})
    ).tensors
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())
    loaded["head"].zero_()
    assert torch.equal(loaded["embedding"], weight)


def test_facts_come_back_exactly_or_are_refused(tmp_path: Path) -> None:
    facts = {"step": 5, "best": {"loss": 0.1 + 0.2, "seen": [1, None, True, "é"]}}
    path = write_checkpoint(tmp_path, "last-00000005", {}, facts)
    assert read_checkpoint(path).facts == facts
    for wrong in ({"x": float("nan")}, {"x": object()}, {"x": (1, 2)}, {1: "x"}):
        with pytest.raises(ValueError, match="JSON"):
            write_checkpoint(tmp_path, "last-00000006", {}, wrong)  # type: ignore[arg-type]
    assert os.listdir(tmp_path) == ["last-00000005"]


def test_a_tensor_that_safetensors_cannot_hold_is_refused(tmp_path: Path) -> None:
    save(tmp_path, 1)
    with pytest.raises(ValueError, match="complex128 cannot be saved"):
        write_checkpoint(
            tmp_path, "last-00000002", {"z": torch.zeros(2, dtype=torch.complex128)}, {}
        )
    assert os.listdir(tmp_path) == ["last-00000001"]


def test_two_last_and_one_best_are_kept(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        save(tmp_path, step)
        save(tmp_path, step, "best")
    assert sorted(os.listdir(tmp_path)) == ["best-00000030", "last-00000020", "last-00000030"]
    assert KEPT == {"last": 2, "best": 1}


def test_a_run_that_went_back_prunes_what_came_later(tmp_path: Path) -> None:
    for step in (10, 20):
        save(tmp_path, step)
    damage(tmp_path / "last-00000020" / FACTS)
    save(tmp_path, 15)
    assert sorted(os.listdir(tmp_path)) == ["last-00000010", "last-00000015"]


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    damage(path / TENSORS)
    assert save(tmp_path, 1) == path
    assert read_checkpoint(path).facts == {"step": 1}
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("name", ["last-1", "first-00000001", "../last-00000001", "last-00000001x"])
def test_a_wrong_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"name=.* must be"):
        write_checkpoint(tmp_path / "checkpoints", name, {}, {})
    assert not os.listdir(tmp_path)


def test_a_fresh_run_has_no_checkpoint(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path / "missing") is None
    (tmp_path / ".tmp-last-00000001").mkdir()  # a first save that was killed
    assert latest_checkpoint(tmp_path) is None
    assert best_checkpoint(tmp_path) is None


def damage(path: Path, position: int = -1) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", [TENSORS, FACTS, MANIFEST])
def test_every_flipped_byte_is_noticed_and_its_file_named(tmp_path: Path, name: str) -> None:
    """Header, tensor data, JSON and manifest: each byte of each file, one bit in turn."""
    path = save(tmp_path, 1) / name
    whole = path.read_bytes()
    for position in range(len(whole)):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << position % 8
        path.write_bytes(flipped)
        with pytest.raises(CheckpointError) as caught:
            read_checkpoint(path.parent)
        # A digit of a sum in the manifest cannot be told from a change of the file it sums.
        assert name in str(caught.value) or name == MANIFEST
    path.write_bytes(whole)
    read_checkpoint(path.parent)


@pytest.mark.parametrize("name", [TENSORS, FACTS, MANIFEST])
def test_missing_and_added_bytes_are_noticed(tmp_path: Path, name: str) -> None:
    path = save(tmp_path, 1) / name
    whole = path.read_bytes()
    for content in (whole[:-1], whole[: len(whole) // 2], b"", whole + b"\0", whole + b"\n"):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=name):
            read_checkpoint(path.parent)
    path.unlink()
    with pytest.raises(CheckpointError, match=f"{name} is missing"):
        read_checkpoint(path.parent)


def test_the_previous_checkpoint_is_used_and_the_broken_file_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, 10)
    damage(save(tmp_path, 20) / TENSORS)
    with caplog.at_level(logging.WARNING):
        found = latest_checkpoint(tmp_path)
    assert found is not None
    assert found.facts == {"step": 10}
    assert "last-00000020/tensors.safetensors is damaged" in caplog.text


def test_a_run_does_not_silently_begin_again_where_all_are_broken(tmp_path: Path) -> None:
    for step in (10, 20):
        damage(save(tmp_path, step) / FACTS)
    with pytest.raises(CheckpointError, match=r"00000020/facts.*00000010/facts.*fresh=true"):
        latest_checkpoint(tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("whole"), 1)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(name=st.sampled_from([TENSORS, FACTS, MANIFEST]), content=st.binary(max_size=300))
def test_arbitrary_bytes_are_refused(
    whole: Path, tmp_path: Path, name: str, content: bytes
) -> None:
    path = tmp_path / "last-00000001"
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(whole, path)
    (path / name).write_bytes(content)
    with pytest.raises(CheckpointError):
        read_checkpoint(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=8,
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(value=JSON, within=st.booleans())
def test_arbitrary_manifests_are_refused(
    whole: Path, tmp_path: Path, value: object, within: bool
) -> None:
    path = tmp_path / "last-00000001"
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(whole, path)
    manifest = {"schema": 1, "files": value} if within else value
    (path / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    with pytest.raises(CheckpointError, match=MANIFEST):
        read_checkpoint(path)
