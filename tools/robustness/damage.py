"""Ways to damage models, archives and options, for tools/robustness/fuzz.py; a random generator chooses."""

import io
import json
import random
import zipfile
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
import onnx
from onnx import defs, helper

from onnx_lapq import QuantizationConfig
from onnx_lapq.calibration.preprocessing import Preprocessing

__all__ = ["damage_arrays", "damage_bytes", "damage_graph", "damage_options"]

_SIZES = [-1, 0, 1, 2, 3, 4, 5, 7, 8, 9, 100, 2**20, 2**31, 2**40, 2**62]
_NUMBERS = [*_SIZES, -1e-30, 1e-45, 0.1, 0.5, 1.5, 1e30, 1e308, float("nan"), float("inf"), -float("inf")]
_TEXTS = [
    "",
    "none",
    "auto",
    "a\0b",
    "x" * 10_000,
    "*",
    "[",
    "../x",
    "Conv=4",
    "\N{GREEK SMALL LETTER ALPHA}",
]


def damage_bytes(content: bytes, chance: random.Random) -> bytes:
    """Flip, remove, repeat or cut off some bytes."""
    changed = bytearray(content)
    for _ in range(chance.choice([1, 1, 2, 5, 20])):
        at = chance.randrange(len(changed) or 1)
        span = chance.choice([1, 1, 4, 50])
        change = chance.choice(["flip", "flip", "set", "remove", "repeat", "cut"])
        if change == "flip" and changed:
            changed[at] ^= 1 << chance.randrange(8)
        elif change == "set":
            changed[at : at + 1] = chance.choice([b"\0", b"\xff", b"\x7f", b"\x80"])
        elif change == "remove":
            del changed[at : at + span]
        elif change == "repeat":
            changed[at:at] = changed[at : at + span]
        elif change == "cut" and chance.random() < 0.2:
            del changed[at:]
    return bytes(changed)


def damage_arrays(content: bytes, chance: random.Random) -> bytes:
    """Change members of an ``.npz`` whose checksums then fit again: bytes, values, types, shapes, names."""
    members = _members(content)
    name = chance.choice(sorted(members))
    if chance.random() < 0.3:
        members[name] = damage_bytes(members[name], chance)
    elif chance.random() < 0.1:
        members[chance.choice(["y.npy", "labels.npy", "x", "../x.npy"])] = members.pop(name)
    else:
        members[name] = _npy(_damaged(np.load(io.BytesIO(members[name])), chance))
    return _archive(members)


def damage_options(content: bytes, chance: random.Random) -> bytes:
    """Options with one or a few odd values: mostly of the right kind, such as a number out of all bounds."""
    values: dict[str, dict[str, Any]] = {"": {}, "preprocessing": {}}
    for _ in range(chance.choice([1, 1, 1, 2, 5])):
        table, options = chance.choice([("", QuantizationConfig()), ("preprocessing", Preprocessing())])
        name = chance.choice([field.name for field in fields(options) if field.name != "preprocessing"])
        values[table][name] = _odd_value(getattr(options, name), chance)
    return "\n".join(
        "\n".join(
            [f"[{table}]" if table else "", *(f"{name} = {_toml(value)}" for name, value in part.items())]
        )
        for table, part in values.items()
    ).encode()


def damage_graph(content: bytes, chance: random.Random) -> bytes:
    """Change nodes, attributes, tensors and types of a model."""
    model = onnx.load_from_string(content)
    for _ in range(chance.choice([1, 1, 2, 4])):
        chance.choice(_GRAPH_CHANGES)(model.graph, chance)
    if chance.random() < 0.05:
        model.opset_import[0].version = chance.choice([-1, 0, 1, 7, 9, 13, 18, 21, 25, 99])
    return model.SerializeToString()


def _members(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _archive(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _damaged(array: np.ndarray, chance: random.Random) -> np.ndarray:
    change = chance.choice(["value", "value", "fill", "type", "shape", "cut", "order"])
    changed = array.copy()
    with np.errstate(all="ignore"):
        if change in ("value", "fill") and changed.size:
            value = np.float64(chance.choice(_NUMBERS)).astype(changed.dtype)
            at = slice(None) if change == "fill" else chance.randrange(changed.size)
            changed.reshape(-1)[at] = value
        elif change == "type":
            kinds = ["?", "i1", "u1", ">i4", "i8", "u8", "f2", ">f4", "f8", "c16", "U3", "S2", "M8[s]"]
            changed = changed.astype(chance.choice(kinds))
        elif change == "shape":
            changed = changed.reshape(chance.choice([(-1,), (1, *array.shape), (*array.shape, 1)]))
        elif change == "cut":
            changed = changed.reshape(-1)[: chance.randrange(changed.size + 1)]
        elif change == "order":
            changed = np.asfortranarray(changed.T)
    return changed


def _odd_value(usual: Any, chance: random.Random) -> Any:
    if chance.random() < 0.2:
        return chance.choice([*_NUMBERS, *_TEXTS, True, [], [[1]], {"x": 1}])
    if isinstance(usual, tuple):
        return [
            _odd_value(chance.choice(usual or ("",)), chance) for _ in range(chance.choice([0, 1, 2, 3, 9]))
        ]
    if isinstance(usual, bool):
        return chance.choice([True, False])
    return chance.choice(_TEXTS if isinstance(usual, str) else _NUMBERS)


def _toml(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(part)}" for key, part in value.items()) + "}"
    if isinstance(value, float):
        return str(value)
    return json.dumps(value, ensure_ascii=False)


def _rewire(graph: onnx.GraphProto, chance: random.Random) -> None:
    names = ["", "x", *(output for node in graph.node for output in node.output)]
    names += [tensor.name for tensor in graph.initializer]
    node = chance.choice(graph.node) if graph.node else None
    if node is not None and node.input:
        node.input[chance.randrange(len(node.input))] = chance.choice(names)


def _other_operator(graph: onnx.GraphProto, chance: random.Random) -> None:
    operators = sorted({schema.name for schema in defs.get_all_schemas() if schema.domain == ""})
    if graph.node:
        chance.choice(graph.node).op_type = chance.choice(operators)


def _remove_node(graph: onnx.GraphProto, chance: random.Random) -> None:
    if graph.node:
        del graph.node[chance.randrange(len(graph.node))]


def _repeat_node(graph: onnx.GraphProto, chance: random.Random) -> None:
    if graph.node:
        graph.node.append(chance.choice(graph.node))


def _attribute(graph: onnx.GraphProto, chance: random.Random) -> None:
    node = chance.choice(graph.node) if graph.node else None
    if node is None:
        return
    name = chance.choice(
        ["pads", "strides", "dilations", "group", "axis", "transA", "alpha", "kernel_shape", "perm"]
    )
    values = [chance.choice(_SIZES) for _ in range(chance.choice([1, 2, 4]))]
    value: object = values if chance.random() < 0.7 else chance.choice([values[0], 1e38, float("nan")])
    kept = [attribute for attribute in node.attribute if attribute.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])


def _tensor(graph: onnx.GraphProto, chance: random.Random) -> None:
    tensor = chance.choice(graph.initializer)
    change = chance.choice(["dims", "type", "nan", "data", "name"])
    if change == "dims" and tensor.dims:
        tensor.dims[chance.randrange(len(tensor.dims))] = chance.choice(_SIZES)
    elif change == "type":
        tensor.data_type = chance.randrange(30)
    elif change == "nan":
        value = np.float32(chance.choice([np.nan, np.inf, 1e30, 1e-30, 1e-45, 0]))
        tensor.raw_data = value.tobytes() * (len(tensor.raw_data) // 4)
    elif change == "data":
        tensor.raw_data = damage_bytes(tensor.raw_data, chance)
    else:
        tensor.name = chance.choice(["", "x", "y", "a", "w1"])


def _value(graph: onnx.GraphProto, chance: random.Random) -> None:
    kind = chance.choice([graph.input, graph.output])[0].type.tensor_type
    if chance.random() < 0.3:
        kind.elem_type = chance.randrange(30)
    elif kind.shape.dim:
        kind.shape.dim[chance.randrange(len(kind.shape.dim))].dim_value = chance.choice(_SIZES)


_GRAPH_CHANGES: list[Callable[[onnx.GraphProto, random.Random], None]] = [
    *[_rewire, _other_operator, _remove_node, _repeat_node, _attribute, _tensor, _value]
]
