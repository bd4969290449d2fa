"""Files from a stranger: whatever they name or hold, they are refused, and nothing in them runs."""

import ast
import json
import os
import pickle
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from cli.instantiate import instantiate, read_config
from tracking import checkpoint as checkpoint_module
from tracking.checkpoint import (
    FACTS,
    MANIFEST,
    TENSORS,
    CheckpointError,
    read_checkpoint,
    write_checkpoint,
)

ROOT = Path(__file__).parents[2]
COMMAND = "touch executed"
DANGEROUS = ("pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "subprocess.Popen")

_events: list[str] | None = None


def _audit(event: str, arguments: Any) -> None:
    if _events is not None and event in DANGEROUS:
        _events.append(event)


sys.addaudithook(_audit)  # Python cannot take one away again; it sleeps outside of these tests


@pytest.fixture(autouse=True)
def nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fails a test in which a command was run, a pickle was opened or a file was made."""
    global _events
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    _events = []
    yield
    seen, _events = _events, None
    assert seen == []
    assert os.listdir(tmp_path / "cwd") == []


def call(target: Any, **arguments: Any) -> dict[str, Any]:
    return {"_target_": target, **arguments}


def nested(depth: int) -> dict[str, Any]:
    node: dict[str, Any] = {}
    for _ in range(depth):
        node = {"x": node}
    return node


OURS = "dropout.standard.StandardDropout"
HOSTILE_CONFIGS: dict[str, Any] = {
    "a command": call("os.system", command=COMMAND),
    "python": call("builtins.exec", _args_=[f"import os; os.system({COMMAND!r})"]),
    "a process": call("subprocess.run", args=["touch", "executed"]),
    "an import of ours": call("common.files.os.system", command=COMMAND),
    "a name imported by ours": call("tracking.checkpoint.load_file", filename="/etc/passwd"),
    "a name through torch": call("dropout.standard.torch.load", f="x", weights_only=False),
    "our globals": call(f"{OURS}.__init__.__globals__"),
    "our method": call(f"{OURS}.forward"),
    "a class method of ours": call("training.state.TrainState.build", cfg={}),
    "our function": call("common.files.write_atomically", path="executed", text="1"),
    "our function, positional": call("common.files.write_atomically", _args_=["executed", "1"]),
    "hydra inside hydra": call("hydra.utils.instantiate", config=call("os.system")),
    "hydra finds it": call("hydra.utils.get_method", path="os.system"),
    "a partial": call("os.system", _partial_=True, command=COMMAND),
    "functools": call("functools.partial", _args_=["os.system", COMMAND]),
    "in an argument": call(OURS, _partial_=True, p=call("os.system", command=COMMAND)),
    "in a list": {"a": [{"b": [call("os.system", command=COMMAND)]}]},
    "not followed by hydra": call(OURS, _recursive_=False, p=call("os.system", command=COMMAND)),
    "a list as target": call(["os", "system"], command=COMMAND),
    "a callable as target": call(os.system, command=COMMAND),
    "an empty target": call(""),
    "a relative target": call("..os.system", command=COMMAND),
    "a package": call("dropout"),
    "a module": call("dropout.standard"),
    "a path": call("dropout.standard/../../os.system"),
    "a line break": call(f"{OURS}\n"),
    "a look-alike": call("dropοut.standard.StandardDropout"),  # a Greek omicron
    "our script": call("experiments.table.main"),
    "an entry point": call("train.main"),
    "a test": call("tests.tracking.test_hostile_files.call"),
    "the environment": {"x": "${oc.env:HOME}"},
    "a target by interpolation": {"evil": "os.system", "x": call("${evil}", command=COMMAND)},
    "a created node": {"x": "${oc.create:{_target_: os.system, command: " + COMMAND + "}}"},
    "depth": nested(1000),
    "an object": {"x": object()},
    "a key that is no text": {"x": {1: 2}},
    "a convert mode that is none": call(OURS, _convert_=["all"]),
}


@pytest.mark.parametrize("name", HOSTILE_CONFIGS)
def test_a_hostile_config_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"refused|must|no more|no plain value"):
        instantiate(HOSTILE_CONFIGS[name])


@pytest.mark.parametrize("target", ["os.system", "dropout.standard.torch.load"])
def test_a_target_that_interpolates_its_way_out_is_refused(target: str) -> None:
    live = OmegaConf.create({"evil": target, "node": call("${evil}", command=COMMAND)})
    with pytest.raises(ValueError, match=f"_target_='{target}' is refused"):
        instantiate(live.node)


HOSTILE_YAML: dict[str, str | bytes] = {
    "a python object": f"x: !!python/object/apply:os.system [{COMMAND}]",
    "a python name": "x: !!python/name:os.system",
    "an unknown tag": "x: !evil y",
    "an alias": "a: &a [x, x]\nb: *a",
    "billion laughs": "a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]",
    "an interpolation": "x: ${oc.env:HOME}",
    "depth": "[" * 3000 + "]" * 3000,
    "a deep mapping": "x: " + "{a: " * 200 + "1" + "}" * 200,
    "length": "x: " + "y" * 2**21,
    "a list": "- x",
    "nothing": "",
    "no text": b"\xff\xfe\x00",
    "no yaml": "x: [",
    "two documents": "a: 1\n---\nb: 2",
}


@pytest.mark.parametrize("name", HOSTILE_YAML)
def test_a_hostile_stored_config_is_refused(tmp_path: Path, name: str) -> None:
    content = HOSTILE_YAML[name]
    path = tmp_path / "config.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=r"config\.yaml cannot be used: "):
        read_config(path)


class Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (COMMAND,)


def header(content: Any, data: bytes = b"") -> bytes:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return struct.pack("<Q", len(text)) + text + data


def f32(shape: list[int], *offsets: int) -> dict[str, Any]:
    return {"dtype": "F32", "shape": shape, "data_offsets": offsets}


HOSTILE_TENSORS = {
    "a pickle": pickle.dumps(Payload()),
    "a pickle behind a header": header({}) + pickle.dumps(Payload()),
    "torch.save": b"PK\x03\x04" + b"archive/data.pkl" + pickle.dumps(Payload()),
    "a huge header": struct.pack("<Q", 2**63) + b"{}",
    "a header beyond the end": struct.pack("<Q", 10**6) + b"{}",
    "overlapping tensors": header({"a": f32([2], 0, 8), "b": f32([2], 4, 12)}, bytes(12)),
    "a tensor beyond the end": header({"a": f32([9], 0, 36)}, bytes(8)),
    "backward offsets": header({"a": f32([2], 8, 0)}, bytes(8)),
    "a hole": header({"a": f32([1], 0, 4), "b": f32([1], 8, 12)}, bytes(12)),
    "a shape that overflows": header({"a": f32([2**62, 2**62], 0, 8)}, bytes(8)),
    "an empty tensor that overflows": header({"a": f32([0, 2**63], 0, 0)}),
    "a negative shape": header({"a": f32([-2], 0, 8)}, bytes(8)),
    "an unknown type": header({"a": {**f32([2], 0, 8), "dtype": "PICKLE"}}, bytes(8)),
    "deep json": header(b"[" * 10**5),
    "no json": header(b"\xff" * 64),
    "nothing": b"",
}

HOSTILE_FACTS = {
    "a pickle": pickle.dumps(Payload()),
    "deep json": b"[" * 10**6,
    "deep objects": b'{"x":' * 10**5 + b"1" + b"}" * 10**5,
    "a number of a million digits": b'{"step": ' + b"9" * 10**6 + b"}",
    "a list": b"[1]",
    "no text": b"\xff\xfe",
    "nothing": b"",
}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "saved", "last-00000001", {"w": torch.ones(2)}, {"step": 1})


def forge(path: Path, name: str, content: bytes) -> None:
    """Replace a file, and make the manifest agree: a stranger would."""
    (path / name).write_bytes(content)
    (path / MANIFEST).write_bytes(checkpoint_module._manifest(path))


@pytest.mark.parametrize(
    ("name", "content"),
    [(TENSORS, content) for content in HOSTILE_TENSORS.values()]
    + [(FACTS, content) for content in HOSTILE_FACTS.values()],
    ids=[*HOSTILE_TENSORS, *(f"facts: {name}" for name in HOSTILE_FACTS)],
)
def test_a_hostile_checkpoint_is_refused(saved: Path, name: str, content: bytes) -> None:
    forge(saved, name, content)
    with pytest.raises(CheckpointError, match="last-00000001"):
        read_checkpoint(saved)


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"step": 10**9}, "holds step 1000000000, which its name does not say"),
        ({"step": 1, "progress": {"step": 10**9}}, "step 1 of a training at step 1000000000"),
        ({"step": 1, "run": "b" * 64}, "is of run bbbbbbbb, and this is run aaaaaaaa"),
    ],
)
def test_a_checkpoint_that_is_another_ones_is_refused(saved: Path, facts: Any, said: str) -> None:
    forge(saved, FACTS, json.dumps({"run": "a" * 64, **facts}).encode())
    with pytest.raises(CheckpointError, match=said):
        read_checkpoint(saved, "a" * 64)


def test_file_names_come_from_us_and_not_from_the_manifest(saved: Path) -> None:
    entries = json.loads((saved / MANIFEST).read_text())["files"]
    for name in ("../../etc/passwd", "/etc/passwd", "tensors.pkl"):
        forged = {"schema": 1, "files": {**entries, name: entries[TENSORS]}}
        (saved / MANIFEST).write_text(json.dumps(forged, indent=2) + "\n")
        with pytest.raises(CheckpointError, match=r"manifest\.json is damaged"):
            read_checkpoint(saved)


@pytest.mark.parametrize("name", [TENSORS, FACTS, MANIFEST])
def test_links_pipes_and_directories_are_not_followed(saved: Path, name: str) -> None:
    path, aside = saved / name, saved.parent / "aside"
    path.rename(aside)
    for make in (lambda: path.symlink_to(aside), lambda: os.mkfifo(path), path.mkdir):
        make()
        with pytest.raises(CheckpointError, match="must be a plain file"):
            read_checkpoint(saved)
        path.rmdir() if path.is_dir() else path.unlink()


def test_a_linked_checkpoint_is_not_followed(saved: Path) -> None:
    link = saved.parent / "last-00000009"
    link.symlink_to(saved)
    with pytest.raises(CheckpointError, match="no such directory"):
        read_checkpoint(link)


def test_no_pickle_in_our_code() -> None:
    """No import of a pickler, no `torch.load`, no `torch.save`, no `allow_pickle`."""
    rooms = [path.parent for path in ROOT.glob("*/__init__.py") if path.parent.name != "tests"]
    sources = [path for room in rooms for path in room.rglob("*.py")]
    sources += [*ROOT.glob("*.py"), *(ROOT / "hydra_plugins").glob("*.py")]
    assert ROOT / "tracking" / "checkpoint.py" in sources and len(sources) > 150
    for path in sources:
        for node in ast.walk(ast.parse(path.read_text())):
            assert not _pickles(node), f"{path} line {getattr(node, 'lineno', '?')}"


def _pickles(node: ast.AST) -> bool:
    picklers = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    if isinstance(node, ast.Import):
        return any(name.name.partition(".")[0] in picklers for name in node.names)
    if isinstance(node, ast.ImportFrom):
        return (node.module or "").partition(".")[0] in picklers
    if isinstance(node, ast.keyword):
        return node.arg in {"allow_pickle", "weights_only"}
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return node.value.id == "torch" and node.attr in {"load", "save"}
    return False
