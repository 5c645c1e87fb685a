"""Write layer normalisation that is spelled out as the operator that it is, from opset 17 on.

With ``d = x - mean(x)`` over the last axis, ``d / sqrt(mean(d * d) + epsilon) * scale + bias`` becomes
``LayerNormalization(x, scale, bias)``; the square may be a Pow, the division a product with a Reciprocal, and
the bias may be missing.
"""

import onnx_ir as ir

from onnx_lapq.graph.attributes import constant
from onnx_lapq.graph.simplify.idioms.affine_steps import affine_step, read_by_one, step_behind
from onnx_lapq.graph.simplify.idioms.changing import change_nodes, take_place_of
from onnx_lapq.graph.simplify.idioms.matching import keeps_axes, made_by, reduced_axis

__all__ = ["name_layer_norms"]

_LAYER_NORM = 17


def name_layer_norms(model: ir.Model) -> bool:
    """Apply the rule, in place.

    Args:
        model: Its constants are initializers.

    Returns:
        Whether anything changed.
    """
    return change_nodes(model, "Mul", _name, since=_LAYER_NORM)


def _name(graph: ir.Graph, scaling: ir.Node) -> bool:
    step = affine_step(scaling)
    normal = None if step is None else _normalised(step.source)
    if step is None or normal is None or step.factor.ndim != 1 or not read_by_one(step.source):
        return False
    x, epsilon = normal
    if x.shape is None or x.shape[-1] != step.factor.size:
        return False
    inputs, last = [x, _constant_input(scaling)], scaling
    shift = _bias_behind(scaling, step.factor.size)
    if shift is not None:
        inputs, last = [*inputs, _constant_input(shift)], shift
    norm = ir.node("LayerNormalization", inputs, {"axis": -1, "epsilon": epsilon}, name=scaling.name)
    graph.insert_before(last, norm)
    take_place_of(norm, last)
    return True


def _normalised(value: ir.Value) -> tuple[ir.Value, float] | None:
    """What was normalised and epsilon, where a value is that without its mean and its deviation."""
    difference, deviation = _quotient(value)
    minus, root = made_by(difference, "Sub"), made_by(deviation, "Sqrt")
    if minus is None or root is None or difference is None:
        return None
    step = step_behind(root.inputs[0])
    x, mean = minus.inputs[0], made_by(minus.inputs[1], "ReduceMean")
    if step is None or mean is None or x is None or mean.inputs[0] is not x or not _is_over_last_axis(mean):
        return None
    variance = made_by(step.source, "ReduceMean")
    square = None if variance is None else variance.inputs[0]
    if variance is None or not _is_over_last_axis(variance) or not _is_square(square, difference):
        return None
    return (x, float(step.offset.reshape(()))) if step.offset.size == 1 and (step.factor == 1).all() else None


def _quotient(value: ir.Value) -> tuple[ir.Value | None, ir.Value | None]:
    """Numerator and denominator."""
    division = made_by(value, "Div")
    if division is not None:
        return division.inputs[0], division.inputs[1]
    product = made_by(value, "Mul")
    for index in range(0 if product is None else 2):
        assert product is not None
        inverse = made_by(product.inputs[index], "Reciprocal")
        if inverse is not None:
            return product.inputs[1 - index], inverse.inputs[0]
    return None, None


def _is_square(value: ir.Value | None, of: ir.Value) -> bool:
    product, power = made_by(value, "Mul"), made_by(value, "Pow")
    if product is not None:
        return all(each is of for each in product.inputs)
    exponent = None if power is None else constant(power.inputs[1])
    if power is None or power.inputs[0] is not of or exponent is None:
        return False
    return bool((exponent.numpy() == 2).all())


def _is_over_last_axis(mean: ir.Node) -> bool:
    value = mean.inputs[0]
    rank = 0 if value is None or value.shape is None else len(value.shape)
    return keeps_axes(mean) and reduced_axis(mean) == rank - 1


def _bias_behind(scaling: ir.Node, size: int) -> ir.Node | None:
    value = scaling.outputs[0]
    if not read_by_one(value):
        return None
    (reader, _), *_ = value.uses()
    step = affine_step(reader) if reader.op_type == "Add" and reader.graph is scaling.graph else None
    return reader if step is not None and step.offset.shape == (size,) else None


def _constant_input(node: ir.Node) -> ir.Value | None:
    return next(value for value in node.inputs if constant(value) is not None)
