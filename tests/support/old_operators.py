"""One node in a model, as old opsets spell it, with inputs: what opset conversion is tested on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.backend.test.case.node import collect_testcases


@dataclass(frozen=True, eq=False)
class Case:
    """A node, the opsets that spell it so, and what goes in."""

    op_type: str
    opsets: Sequence[int]
    attributes: dict[str, object]
    inputs: Sequence[np.ndarray]
    constants: Sequence[np.ndarray] = ()
    outputs: int = 1

    def feeds(self) -> dict[str, np.ndarray]:
        return {f"x{index}": values for index, values in enumerate(self.inputs)}

    def model(self, opset: int) -> onnx.ModelProto:
        """The node alone, its inputs of unknown sizes."""
        constants = [numpy_helper.from_array(values, f"c{i}") for i, values in enumerate(self.constants)]
        graph = helper.make_graph([self._node("y")], "g", self._inputs(), self._typeless("y"), constants)
        opsets = [helper.make_opsetid("", opset)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)

    def model_in_branch(self, opset: int) -> onnx.ModelProto:
        """The node in both branches of an If."""
        model = self.model(opset)
        branches = {
            f"{name}_branch": helper.make_graph([self._node(name)], name, [], self._typeless(name))
            for name in ("then", "else")
        }
        outputs = [f"y{index}" for index in range(self.outputs)]
        model.graph.node[0].CopyFrom(helper.make_node("If", ["condition"], outputs, **branches))
        model.graph.input.append(helper.make_tensor_value_info("condition", TensorProto.BOOL, []))
        return model

    def _node(self, output: str) -> onnx.NodeProto:
        names = [f"x{index}" for index in range(len(self.inputs))]
        names += [f"c{index}" for index in range(len(self.constants))]
        outputs = [f"{output}{index}" for index in range(self.outputs)]
        return helper.make_node(self.op_type, names, outputs, name="node", **self.attributes)

    def _inputs(self) -> list[onnx.ValueInfoProto]:
        return [
            helper.make_tensor_value_info(
                name,
                helper.np_dtype_to_tensor_dtype(values.dtype),
                [f"{name}_{axis}" for axis in range(values.ndim)],
            )
            for name, values in self.feeds().items()
        ]

    def _typeless(self, output: str) -> list[onnx.ValueInfoProto]:
        return [onnx.ValueInfoProto(name=f"{output}{index}") for index in range(self.outputs)]


def changed_operators() -> Iterator[Case]:
    """Operators whose attributes, inputs or meaning changed after opset 7, in their old spelling."""
    for op_type, opsets, attributes, inputs, *rest in _CHANGED:
        yield Case(op_type, opsets, attributes, inputs, *rest)
    for op_type in ("Softmax", "LogSoftmax", "Hardmax"):
        for axis in (None, 0, 1, 2, 3, -1, -3):
            opsets = range(11, 13) if axis is not None and axis < 0 else range(7, 13)
            yield Case(op_type, opsets, {} if axis is None else {"axis": axis}, [_IMAGES])
    for op_type in _REDUCTIONS:
        positive = [np.abs(_IMAGES) + np.float32(0.1)]
        yield Case(op_type, range(7, 13), {}, positive)
        yield Case(op_type, range(7, 13), {"axes": [1, 2], "keepdims": 0}, positive)
        yield Case(op_type, range(11, 13), {"axes": [-1]}, positive)
    yield from _resized()


def _resized() -> Iterator[Case]:
    for mode in ("nearest", "linear"):
        for scales in ((1, 1, 2, 2), (1, 1, 1.5, 2.5), (1, 1, 1.25, 1)):
            values = np.array(scales, np.float32)
            attributes = {"mode": mode, "scales": values.tolist()}
            yield Case("Upsample", range(7, 9), attributes, [_IMAGES])
            yield Case("Upsample", [9], {"mode": mode}, [_IMAGES], [values])
            yield Case("Resize", [10], {"mode": mode}, [_IMAGES], [values])
        for scales in ((1, 1, 0.5, 0.5), (1, 1, 0.6, 0.7), (1, 1, 0.6, 1.7)):
            yield Case("Resize", [10], {"mode": mode}, [_IMAGES], [np.array(scales, np.float32)])
        yield Case("Resize", [10], {"mode": mode}, [_IMAGES[0, 0]], [np.array([1.3, 0.6], np.float32)])


def unchanged_operators() -> Iterator[Case]:
    """The nodes of onnx's own backend tests, at the first and last old opset of each definition."""
    for case in newest_operators():
        opsets = sorted(_ends_of_definitions(case.op_type, max(case.opsets)))
        if opsets:
            yield replace(case, opsets=opsets)


@cache
def newest_operators() -> tuple[Case, ...]:
    """The nodes of onnx's own backend tests, at the opset that the tests are of."""
    return tuple(_newest_operators())


def _newest_operators() -> Iterator[Case]:
    for test in collect_testcases(None):
        model, (inputs, _) = test.model, test.data_sets[0]
        (node, *others) = model.graph.node
        if not others and not node.domain and all(isinstance(values, np.ndarray) for values in inputs):
            yield _FromTest(node.op_type, [model.opset_import[0].version], {}, inputs, proto=model)


def _ends_of_definitions(op_type: str, newest: int) -> set[int]:
    ends: dict[int, list[int]] = {}
    for opset in range(7, min(newest, 13)):
        try:
            since = onnx.defs.get_schema(op_type, opset, "").since_version
        except onnx.defs.SchemaError:
            continue
        ends[since] = [*ends.get(since, [opset])[:1], opset]
    return {opset for both in ends.values() for opset in both}


@dataclass(frozen=True, eq=False)
class _FromTest(Case):
    proto: onnx.ModelProto | None = None

    def feeds(self) -> dict[str, np.ndarray]:
        assert self.proto is not None
        return {
            value.name: values for value, values in zip(self.proto.graph.input, self.inputs, strict=False)
        }

    def model(self, opset: int) -> onnx.ModelProto:
        assert self.proto is not None
        model = onnx.ModelProto()
        model.CopyFrom(self.proto)
        model.opset_import[0].version = opset
        model.ir_version = min(model.ir_version, 8)
        return model


def _floats(*shape: int) -> np.ndarray:
    return _RANDOM.standard_normal(shape).astype(np.float32)


def _integers(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


_RANDOM = np.random.default_rng(0)
_IMAGES = _floats(2, 3, 6, 5)
_ROWS = _floats(2, 4, 3)
_STATISTICS = [_floats(3), _floats(3), _floats(3), np.abs(_floats(3)) + np.float32(0.5)]
_REDUCTIONS = (
    *("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2"),
    *("ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare"),
)
_CHANGED = (
    ("Clip", range(7, 11), {"min": -0.5, "max": 0.5}, [_IMAGES]),
    ("Clip", range(7, 11), {"max": 0.5}, [_IMAGES]),
    ("Clip", range(7, 11), {}, [_IMAGES]),
    ("Pad", range(7, 11), {"pads": [0, 0, 1, 2, 0, 0, 2, 1], "mode": "reflect"}, [_IMAGES]),
    ("Pad", range(7, 11), {"pads": [0, 0, 1, 2, 0, 0, 2, 1], "value": 3.0}, [_IMAGES]),
    ("Pad", range(7, 11), {"pads": [0, 0, -1, 0, 0, 0, 0, -1]}, [_IMAGES]),
    ("Slice", range(7, 10), {"starts": [1, 0], "ends": [3, -1], "axes": [2, 3]}, [_IMAGES]),
    ("Slice", range(7, 10), {"starts": [0, 1], "ends": [1, 2]}, [_IMAGES]),
    ("TopK", range(7, 10), {"axis": 1, "k": 2}, [_IMAGES], [], 2),
    ("TopK", range(10, 11), {"axis": 2}, [_IMAGES], [_integers(3)], 2),
    ("Dropout", range(7, 12), {"ratio": 0.3}, [_IMAGES]),
    ("BatchNormalization", range(7, 13), {"epsilon": 0.01}, [_IMAGES], _STATISTICS),
    ("BatchNormalization", range(7, 9), {"spatial": 1}, [_IMAGES], _STATISTICS),
    (
        *("BatchNormalization", range(7, 9), {"spatial": 0}, [_IMAGES]),
        [*(_floats(3, 6, 5) for _ in range(3)), np.abs(_floats(3, 6, 5)) + np.float32(0.5)],
    ),
    ("Squeeze", range(7, 13), {"axes": [1]}, [_floats(2, 1, 3)]),
    ("Squeeze", range(7, 13), {}, [_floats(2, 1, 3)]),
    ("Squeeze", range(11, 13), {"axes": [-2]}, [_floats(2, 1, 3)]),
    ("Unsqueeze", range(7, 13), {"axes": [0, 2]}, [_floats(2, 3)]),
    ("Split", range(7, 13), {"axis": 1}, [_ROWS], [], 2),
    ("Split", range(7, 13), {"axis": 2, "split": [1, 2]}, [_ROWS], [], 2),
    ("MaxPool", range(7, 13), {"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER"}, [_IMAGES]),
    ("MaxPool", range(10, 13), {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}, [_IMAGES]),
    ("AveragePool", range(7, 13), {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}, [_IMAGES]),
    (
        "Gemm",
        range(7, 13),
        {"alpha": 0.5, "beta": 2.0, "transB": 1},
        [_floats(3, 4)],
        [_floats(5, 4), _floats(5)],
    ),
    ("Sum", range(8, 13), {}, [_IMAGES], [_floats(5)]),
    ("Max", range(8, 13), {}, [_IMAGES], [_floats(5)]),
    ("Scatter", range(9, 11), {"axis": 0}, [_floats(3, 3)], [_integers(1, 0, 2)[None], _floats(1, 3)]),
    ("Pow", range(7, 13), {}, [np.abs(_IMAGES)], [np.array([2.0], np.float32)]),
    ("LSTM", range(7, 13), {"hidden_size": 4}, [_floats(5, 2, 3)], [_floats(1, 16, 3), _floats(1, 16, 4)], 3),
    ("DepthToSpace", range(7, 13), {"blocksize": 2}, [_floats(1, 8, 2, 3)]),
)
