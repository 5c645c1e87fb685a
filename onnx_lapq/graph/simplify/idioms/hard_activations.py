"""Write HardSigmoid and HardSwish as the operators that they are.

Exporters spell them out; below, ``low, high`` are the bounds of a Clip, ``c`` and ``b`` single constants.

1. ``Clip(x + b, 0, high) / high`` becomes ``HardSigmoid(x; 1 / high, b / high)``.
2. ``x * Clip(x + b, 0, high) / high`` becomes ``x`` times the same.
3. ``HardSwish(x)`` becomes ``x * HardSigmoid(x; 1/6, 1/2)``, as in onnxruntime when it loads a model: both
   parts run on integer codes.
"""

import numpy as np
import onnx_ir as ir

from onnx_lapq.graph.attributes import constant
from onnx_lapq.graph.simplify.idioms.affine_steps import AffineStep, affine_step, read_by_one, step_behind
from onnx_lapq.graph.simplify.idioms.changing import change_nodes, take_place_of

__all__ = ["name_hard_activations"]

_CLOSE = 1e-6


def name_hard_activations(model: ir.Model) -> bool:
    """Apply the rules, in place.

    Args:
        model: Its constants are initializers.

    Returns:
        Whether anything changed.
    """
    named = [_name(model.graph, step) for step in map(affine_step, list(model.graph)) if step is not None]
    return change_nodes(model, "HardSwish", _split) or any(named)


def _name(graph: ir.Graph, step: AffineStep) -> bool:
    """Rules 1 and 2, for the step that divides."""
    node = step.source.producer()
    factor = _single(step.factor)
    if node is None or factor is None or factor <= 0 or step.offset.any() or not read_by_one(step.source):
        return False
    if node.op_type == "Clip":
        found = _clipped(node, factor)
        return found is not None and _write(graph, step.node, *found, factor, times=False)
    if node.op_type != "Mul" or len(node.inputs) != 2:
        return False
    for gate, other in (node.inputs, node.inputs[::-1]):
        clip = None if gate is None else gate.producer()
        if gate is not None and clip is not None and clip.op_type == "Clip" and read_by_one(gate):
            found = _clipped(clip, factor)
            if found is not None and found[0] is other:
                return _write(graph, step.node, *found, factor, times=True)
    return False


def _clipped(clip: ir.Node, factor: float) -> tuple[ir.Value, float] | None:
    """X and b of ``Clip(x + b, 0, 1 / factor)``."""
    low, high = (_bound(clip, index) for index in (1, 2))
    value = clip.inputs[0]
    step = step_behind(value)
    if low != 0 or high is None or abs(high * factor - 1) > _CLOSE or step is None or value is None:
        return None
    offset = _single(step.offset)
    plain = offset is not None and (step.factor == 1).all() and read_by_one(value)
    return (step.source, offset) if plain and offset is not None else None


def _write(graph: ir.Graph, last: ir.Node, x: ir.Value, offset: float, factor: float, *, times: bool) -> bool:
    attributes = {"alpha": factor, "beta": offset * factor}
    nodes = [ir.node("HardSigmoid", [x], attributes, name=f"{last.name}_HardSigmoid")]
    if times:
        gate = nodes[0].outputs[0]
        gate.name, gate.type, gate.shape = f"{last.outputs[0].name}_gate", x.type, x.shape
        nodes.append(ir.node("Mul", [x, gate], name=last.name))
    graph.insert_before(last, nodes)
    take_place_of(nodes[-1], last)
    return True


def _split(graph: ir.Graph, swish: ir.Node) -> bool:
    """Rule 3."""
    x = swish.inputs[0]
    return x is not None and _write(graph, swish, x, 3.0, 1 / 6, times=True)


def _single(values: np.ndarray) -> float | None:
    return float(values.reshape(())) if values.size == 1 else None


def _bound(clip: ir.Node, index: int) -> float | None:
    tensor = constant(clip.inputs[index]) if len(clip.inputs) > index else None
    return None if tensor is None else _single(tensor.numpy())
