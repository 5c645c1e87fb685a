"""Where activation functions are flat, so that a quantizer in front of them need not reach further.

Below some value HardSwish is constant, and SiLU, GELU and Mish nearly so; Sigmoid and Tanh are on both sides.
What a convolution writes there may be cut off: the codes are spent on what the function tells apart. The
function is found as it stands in the graph, in one node or in many, and computed number by number.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import onnx_ir as ir

from onnx_lapq.common.arrays import FloatArray
from onnx_lapq.graph.attributes import constant, constant_number
from onnx_lapq.graph.placement.movement import moves
from onnx_lapq.graph.placement.operators import ELEMENTWISE
from onnx_lapq.graph.placement.roles import Roles
from onnx_lapq.method.step_sizes.curve import Curve
from onnx_lapq.runtime.session import open_session, run

__all__ = ["curve_of"]

_FURTHEST = 32.0
_POINTS = np.linspace(-_FURTHEST, _FURTHEST, 12801)
_SAME = 0.001
"""Values that differ by less count as the same."""

_FUNCTIONS = ELEMENTWISE | {
    *("Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "Selu", "Sigmoid", "Softsign", "Swish")
}

_RATIOS = frozenset({"Exp", "Log", "Reciprocal"})
"""Operators whose results may be told apart however small they are."""

_Attribute = tuple[str, ir.AttributeType, object]


@dataclass(frozen=True)
class _Step:
    """A node of an elementwise function: its inputs are numbers, or places of the values before it."""

    op_type: str
    attributes: tuple[_Attribute, ...]
    inputs: tuple[int | np.float32, ...]


@dataclass(frozen=True, eq=False)
class _Place:
    """Which value of a function it is, and the moved value whose elements it is computed from."""

    index: int
    piece: ir.Value


@dataclass(frozen=True, eq=False)
class _Function:
    """Steps, and the places of the values that they compute; the place 0 is the function's input."""

    steps: list[_Step]
    places: dict[ir.Value | None, _Place]


def curve_of(roles: Roles, value: ir.Value) -> Curve | None:
    """What the readers of a value compute from it, where they compute nearly the same beyond some end.

    Args:
        roles: Of all nodes of the graph.
        value: The value.

    Returns:
        The functions, with their ends; None where the readers tell values apart as far as one looks.
    """
    function = _function_of(roles, value)
    seen = sorted(
        {place.index for found, place in function.places.items() if _is_seen(roles, found, function)}
    )
    if not seen or any(index == 0 or function.steps[index - 1].op_type in _RATIOS for index in seen):
        return None
    return _curve(tuple(function.steps), tuple(seen), roles.graph.opset_imports.get("", 1))


def _function_of(roles: Roles, value: ir.Value) -> _Function:
    """The nodes that compute a function of one value alone, element by element."""
    function = _Function([], {value: _Place(0, value)})
    waiting = list(roles.users(value))
    while waiting:
        node, index = waiting.pop(0)
        step = _step(node, index, function) if function.places.keys().isdisjoint(node.outputs) else None
        if step is not None:
            piece = function.places[node.inputs[index]].piece
            function.steps.append(step)
            for output in node.outputs:
                place = _Place(len(function.steps), output if moves(node, index) else piece)
                function.places[output] = place
                waiting.extend(roles.users(output))
    return function


def _step(node: ir.Node, index: int, function: _Function) -> _Step | None:
    """A node as a step; None where it joins different pieces of the value, or reads anything else."""
    if index < 0:
        return None
    here = function.places[node.inputs[index]]
    if moves(node, index):
        return _Step("Identity", (), (here.index,))
    if node.domain != "" or node.op_type not in _FUNCTIONS or None in node.inputs:
        return None
    inputs = [_given(value, here.piece, function) for value in node.inputs if value is not None]
    if node.op_type == "Mul" and here.index == 0 and inputs[1 - index] is None:
        inputs[1 - index] = _least_factor(node.inputs[1 - index])
    attributes = tuple((name, attribute.type, attribute.value) for name, attribute in node.attributes.items())
    known = tuple(given for given in inputs if given is not None)
    return _Step(node.op_type, attributes, known) if len(known) == len(inputs) else None


def _given(value: ir.Value, piece: ir.Value, function: _Function) -> int | np.float32 | None:
    """The place of a value of the same piece, or a number."""
    place = function.places.get(value)
    if place is None:
        return constant_number(value)
    return place.index if place.piece is piece else None


def _least_factor(value: ir.Value | None) -> np.float32 | None:
    """The least of the positive factors of a constant; of them all it leaves the function flat the least."""
    tensor = constant(value)
    if tensor is None or tensor.dtype != ir.DataType.FLOAT or not tensor.size:
        return None
    least = np.float32(tensor.numpy().min())
    return least if least > 0 else None


def _is_seen(roles: Roles, value: ir.Value | None, function: _Function) -> bool:
    """Whether something beside the function's own nodes reads a value."""
    if value is None or value.is_graph_output():
        return True
    return any(function.places.keys().isdisjoint(node.outputs) for node, _ in roles.users(value))


@lru_cache(maxsize=256)
def _curve(steps: tuple[_Step, ...], seen: tuple[int, ...], opset: int) -> Curve | None:
    results = _computed(steps, seen, opset)
    low = min(_same_as_first(result) for result in results)
    high = min(_same_as_first(result[::-1]) for result in results)
    if not low and not high:
        return None
    ends = (float(_POINTS[low]) if low else -np.inf, float(_POINTS[-1 - high]) if high else np.inf)
    return Curve(_POINTS, np.stack(results), *ends)


def _same_as_first(result: FloatArray) -> int:
    """How many points, from the second on, are the same as the first; 0 where they are few, or all."""
    with np.errstate(invalid="ignore"):  # infinity less infinity counts as changed
        changed = ~(np.abs(result - result[0]) < _SAME)
    same = max(int(changed.argmax()) - 1, 0)
    return same if same > len(result) // 8 else 0


def _computed(steps: tuple[_Step, ...], seen: tuple[int, ...], opset: int) -> list[FloatArray]:
    """What the function makes of all points, float64."""
    kind = ir.TensorType(ir.DataType.FLOAT)
    values = [ir.Value(name="x", shape=ir.Shape([len(_POINTS)]), type=kind)]
    numbers: dict[np.float32, ir.Value] = {}
    nodes: list[ir.Node] = []
    for step in steps:
        for number in step.inputs:
            if isinstance(number, np.float32):
                tensor = ir.tensor(np.array(number))
                numbers.setdefault(number, ir.Value(name=f"constant{len(numbers)}", const_value=tensor))
        inputs = [values[given] if isinstance(given, int) else numbers[given] for given in step.inputs]
        nodes.append(ir.Node("", step.op_type, inputs, [ir.Attr(*parts) for parts in step.attributes]))
        values.append(nodes[-1].outputs[0])
        values[-1].name, values[-1].type = f"y{len(nodes)}", kind
    outputs, constants = [values[place] for place in seen], list(numbers.values())
    graph = ir.Graph([values[0]], outputs, nodes=nodes, initializers=constants, opset_imports={"": opset})
    session = open_session(ir.Model(graph, ir_version=8))
    return [found.astype(np.float64) for found in run(session, {"x": _POINTS.astype(np.float32)})]
