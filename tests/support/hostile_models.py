"""Models as someone would write them who means harm, or whose exporter is broken."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from small_models import residual

Write = Callable[[Path], None]
MODEL = "model.onnx"
_OPSETS = [helper.make_opsetid("", 17), helper.make_opsetid("d", 1)]


def save(model: onnx.ModelProto, folder: Path) -> None:
    (folder / MODEL).write_bytes(model.SerializeToString())


def _value(name: str, shape: Sequence[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _constant(name: str, values: object) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(values), name)


def _conv(source: str = "image", output: str = "y", **attributes: object) -> onnx.NodeProto:
    return helper.make_node("Conv", [source, "w"], [output], name=f"conv_{output}", **attributes)


def _model(
    nodes: Sequence[onnx.NodeProto],
    constants: Sequence[onnx.TensorProto] = (),
    shape: Sequence[int | str] = ("N", 3, 8, 8),
    functions: Sequence[onnx.FunctionProto] = (),
) -> onnx.ModelProto:
    """Image -> y through the nodes; w [8, 3, 3, 3] is there."""
    weight = _constant("w", np.random.default_rng(0).standard_normal((8, 3, 3, 3)).astype(np.float32))
    graph = helper.make_graph(
        nodes, "g", [_value("image", shape)], [_value("y", ["N", 8, "h", "w"])], [weight, *constants]
    )
    return helper.make_model(graph, opset_imports=_OPSETS, ir_version=8, functions=functions)


def broken(change: Callable[[onnx.ModelProto], object]) -> Write:
    """A sound network with something spoiled."""

    def write(folder: Path) -> None:
        model = residual()
        change(model)
        save(model, folder)

    return write


def written(*args: object, **kwargs: object) -> Write:
    return lambda folder: save(_model(*args, **kwargs), folder)  # type: ignore[arg-type]


def external(location: str, place: Callable[[Path, bytes], object], **entries: object) -> Write:
    """A network whose first weight lies in a file that ``place`` makes."""

    def write(folder: Path) -> None:
        model = residual()
        tensor = model.graph.initializer[0]
        data = tensor.raw_data
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        where = str(folder.parent / "secret.bin") if location == "absolute" else location
        for key, value in {"location": where, **entries}.items():
            tensor.external_data.add(key=key, value=str(value))
        place(folder, data)
        save(model, folder)

    return write


def _beside(name: str, size: int | None = None) -> Callable[[Path, bytes], object]:
    return lambda folder, data: (folder / name).write_bytes(data[:size])


def _outside(folder: Path, data: bytes) -> None:
    (folder.parent / "secret.bin").write_bytes(data)


def _linked(folder: Path, data: bytes) -> None:
    _outside(folder, data)
    (folder / "w.bin").symlink_to("../secret.bin")


def _hard_linked(folder: Path, data: bytes) -> None:
    _outside(folder, data)
    os.link(folder.parent / "secret.bin", folder / "w.bin")


def _grown(node: str, inputs: Sequence[str], *constants: onnx.TensorProto) -> Write:
    """A few bytes that ask for terabytes: a node whose output is summed and added to the image."""
    nodes = [
        helper.make_node(node, inputs, ["big"]),
        helper.make_node("Cast", ["big"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["cast"], ["sum"], keepdims=0),
        helper.make_node("Add", ["image", "sum"], ["added"]),
        _conv("added"),
    ]
    return written(nodes, constants)


def _function(name: str, *calls: str) -> onnx.FunctionProto:
    names = ["x", *(f"m{i}" for i in range(len(calls) - 1)), "z"]
    nodes = [
        helper.make_node(call, [names[i]], [names[i + 1]], domain="" if call == "Relu" else "d")
        for i, call in enumerate(calls)
    ]
    return helper.make_function("d", name, ["x"], ["z"], nodes, _OPSETS)


def _calling(name: str, *functions: onnx.FunctionProto) -> Write:
    return written([helper.make_node(name, ["image"], ["q"], domain="d"), _conv("q")], functions=functions)


def _nodes(count: int) -> Write:
    def write(folder: Path) -> None:
        names = ["image", *(f"v{i}" for i in range(count))]
        nodes = [helper.make_node("Relu", [names[i]], [names[i + 1]]) for i in range(count)]
        save(_model([*nodes, _conv(names[-1])]), folder)

    return write


def _million(folder: Path) -> None:
    """A file of 35 MB; the same node again and again."""
    model = residual()
    node = onnx.GraphProto(node=[model.graph.node[1]]).SerializeToString()
    (folder / MODEL).write_bytes(model.SerializeToString() + _field(7, node * 1_000_000))


def _field(number: int, content: bytes) -> bytes:
    """A field of a protobuf message; a parser adds it to the field that it has read before."""
    head, size = bytes([number << 3 | 2]), len(content)
    while size > 127:
        head += bytes([size & 127 | 128])
        size >>= 7
    return head + bytes([size]) + content


def _file(content: bytes) -> Write:
    def write(folder: Path) -> None:
        (folder / MODEL).write_bytes(content)

    return write


def _sparse(folder: Path) -> None:
    with (folder / MODEL).open("wb") as file:
        file.truncate(3 << 30)


def _first_weight(**fields: object) -> Write:
    def change(model: onnx.ModelProto) -> None:
        tensor = model.graph.initializer[0]
        for name, value in fields.items():
            if isinstance(value, list):
                getattr(tensor, name)[:] = value
            else:
                setattr(tensor, name, value)

    return broken(change)


def _sequence_output(folder: Path) -> None:
    model = _model([_conv(), helper.make_node("SequenceConstruct", ["y"], ["seq"])])
    model.graph.output.append(helper.make_tensor_sequence_value_info("seq", TensorProto.FLOAT, None))
    save(model, folder)


_BATCH_NORM = helper.make_node("BatchNormalization", ["a", "s", "short", "s", "s"], ["y"])

REFUSED: dict[str, tuple[Write, str]] = {
    "external data above": (external("../secret.bin", _outside), "outside the model's folder"),
    "external data absolute": (external("absolute", _outside), "outside the model's folder"),
    "external data linked": (external("w.bin", _linked), "is a link out of the model's folder"),
    "external data hard linked": (external("w.bin", _hard_linked), "multiple hard links"),
    "external data missing": (external("w.bin", lambda *_: None), "is missing"),
    "external data a pipe": (external("w.bin", lambda folder, _: os.mkfifo(folder / "w.bin")), "is missing"),
    "external data short": (external("w.bin", _beside("w.bin", 100)), "does not hold the 864 bytes"),
    "external data empty": (external("w.bin", _beside("w.bin", 0)), "does not hold the 864 bytes"),
    "external offset far": (external("w.bin", _beside("w.bin"), offset=10**12), "does not hold the 864"),
    "external offset below": (external("w.bin", _beside("w.bin"), offset=-5), "cannot be read"),
    "external offset text": (external("w.bin", _beside("w.bin"), offset="x"), "cannot be read"),
    "external length wrong": (external("w.bin", _beside("w.bin"), length=5), "does not hold the 864"),
    "external name of zero bytes": (external("a\0b", lambda *_: None), "null byte"),
    "external name without end": (external("a" * 5000, lambda *_: None), "export the model again"),
    "data too short": (_first_weight(raw_data=b"1234"), "c0"),
    "data too long": (
        _first_weight(raw_data=bytes(872)),
        "872 bytes in place of 864; export the model again",
    ),
    "sizes below 0": (_first_weight(dims=[-8, -3, 3, 3]), "Negative dimension"),
    "sizes that overflow": (_first_weight(dims=[2**40, 2**40, 3, 3]), "overflow"),
    "sizes of a wrong shape": (_first_weight(dims=[3, 8, 3, 3]), "does not load"),
    "unknown type": (_first_weight(data_type=99), "99 is not a valid DataType"),
    "cycle": (written([_conv("b", "a"), _conv("a", "b"), _conv()]), "topologically sorted"),
    "output twice": (written([_conv(), _conv()]), "single static assignment"),
    "missing input": (written([_conv("gone")]), "topologically sorted"),
    "recursion": (_calling("f", _function("f", "f")), "recursi"),
    "mutual recursion": (_calling("f", _function("f", "g"), _function("g", "f")), "recursi"),
    "functions that double": (
        _calling(
            "f39", _function("f0", "Relu"), *(_function(f"f{i}", *[f"f{i - 1}"] * 2) for i in range(1, 40))
        ),
        "nodes, functions inlined",
    ),
    "many nodes": (_nodes(25_000), "nodes, functions inlined"),
    "a million nodes": (_million, "nodes, functions inlined"),
    "unknown operator": (written([helper.make_node("Blub", ["image"], ["y"])]), "No Op registered for Blub"),
    "opset of tomorrow": (broken(lambda m: setattr(m.opset_import[0], "version", 10**6)), "opset"),
    "padding without end": (written([_conv(pads=[2**40] * 4)]), "of this machine"),
    "no groups": (written([_conv(group=0)]), "cannot be run on its first samples"),
    "batch norm of two widths": (
        written(
            [_conv(output="a"), _BATCH_NORM],
            [_constant("s", np.ones(8, np.float32)), _constant("short", np.ones(5, np.float32))],
        ),
        "cannot be simplified",
    ),
    "huge fill": (_grown("ConstantOfShape", ["s"], _constant("s", [10**6, 10**6])), "of this machine"),
    "huge tile": (_grown("Tile", ["image", "s"], _constant("s", [1, 1, 10**6, 10**6])), "of this machine"),
    "huge tile of a constant": (
        _grown("Tile", ["w", "s"], _constant("s", [1, 1, 10**6, 10**6])),
        "of this machine",
    ),
    "huge range": (
        _grown("Range", ["a", "b", "c"], *map(_constant, "abc", [0, 10**14, 1])),
        "of this machine",
    ),
    "huge image": (written([_conv()], shape=("N", 3, 2**31, 2**31)), "of this machine"),
    "empty image": (written([_conv()], shape=("N", 3, 0, 0)), "must be above 0"),
    "huge batch": (written([_conv()], shape=(10**15, 3, 8, 8)), "of this machine"),
    "sequence as output": (_sequence_output, "output 'seq' is no tensor"),
    "file cut short": (_file(residual().SerializeToString()[:3000]), "cut short"),
    "file of text": (_file(b"hello\n" * 1000), "not an ONNX file"),
    "file of zeros": (_file(bytes(1000)), "not an ONNX file"),
    "file above 2 GB": (_sparse, "larger than the 2 GB"),
    "file that is a folder": (lambda folder: (folder / MODEL).mkdir(), "not an ordinary file"),
    "file that is a pipe": (lambda folder: os.mkfifo(folder / MODEL), "not an ordinary file"),
    "file that never ends": (
        lambda folder: (folder / MODEL).symlink_to("/dev/zero"),
        "not an ordinary file",
    ),
    "link to itself": (lambda folder: (folder / MODEL).symlink_to(MODEL), "Too many levels"),
}
