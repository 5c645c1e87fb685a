"""Simplify a float model: the graph that placement and calibration see.

Steps of `prepare`, each a pass of onnx-ir or onnxscript:

1. Inline functions.
2. Bring the opset into the range that onnxruntime quantizes.
3. Turn float16 into float32; fold constants, batch norms and pads into convolutions, drop identities and
   dead nodes.
4. Lift constants to initializers; an initializer that is also a graph input becomes a constant.
5. Write global average pooling one way, give layers a bias of their own.
6. Infer shapes and give every node a unique name, and no value the name of a part of a quantizer.

The graph's inputs and outputs keep their names, types and order.
"""

import itertools

import onnx_ir as ir
import onnx_ir.passes.common as common_passes

from onnx_lapq.errors import ModelError, model_errors
from onnx_lapq.graph.simplify.biases import give_layers_a_bias
from onnx_lapq.graph.simplify.folding import fold
from onnx_lapq.graph.simplify.half_precision import widen_half
from onnx_lapq.graph.simplify.opsets import MINIMUM_OPSET, ONNXSCRIPT, lower_opset, raise_opset
from onnx_lapq.graph.simplify.pooling import name_global_pooling
from onnx_lapq.graph.simplify.unknown_types import infer_unknown_types
from onnx_lapq.graph.size_limits import check_shapes, has_long_ranges

__all__ = ["is_quantized", "prepare"]

_MINIMUM_IR = 8
_QUANTIZED_OPS = {
    "ConvInteger",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "MatMulInteger",
    "QGemm",
    "QLinearAdd",
    "QLinearConv",
    "QLinearMatMul",
    "QuantizeLinear",
}
_GENERATED = (
    *("_codes", "_codes_8bit", "_dequantized", "_input"),
    *("_limits", "_packed", "_rows", "_scale", "_zero_point"),
)
"""Ends of the names that quantizers and probes give to their values."""


def prepare(model: ir.Model) -> ir.Model:
    """Simplify a float model in place, without changing what it computes.

    Args:
        model: A model as `onnx_lapq.graph.loading.load` returns it.

    Returns:
        The same model object, rewritten.

    Raises:
        ModelError: The model is quantized already, gives an input as output, is of an opset that cannot be
            converted, contradicts itself, or has a tensor that no memory holds.
    """
    _refuse_quantized(model)
    _refuse_odd_outputs(model)
    with model_errors("the model cannot be simplified"):
        _simplify(model)
    check_shapes(model)
    return model


def _simplify(model: ir.Model) -> None:
    common_passes.InlinePass()(model)
    lower_opset(model)
    raise_opset(model, MINIMUM_OPSET)
    model.ir_version = max(model.ir_version, _MINIMUM_IR)
    common_passes.RemoveInitializersFromInputsPass()(model)
    widen_half(model)
    with ONNXSCRIPT:
        fold(model)
    common_passes.RemoveInitializersFromInputsPass()(model)
    _infer_shapes(model)
    infer_unknown_types(model)
    name_global_pooling(model)
    give_layers_a_bias(model)
    _infer_shapes(model)
    common_passes.ClearMetadataAndDocStringPass()(model)
    common_passes.NameFixPass()(model)
    _free_generated_names(model.graph)
    common_passes.TopologicalSortPass()(model)


def _infer_shapes(model: ir.Model) -> None:
    """Infer shapes; values that are shapes themselves are followed once it is known how many there are."""
    common_passes.ShapeInferencePass(data_prop=False)(model)
    check_shapes(model)
    if not has_long_ranges(model):
        common_passes.ShapeInferencePass()(model)


def is_quantized(model: ir.Model) -> bool:
    """Whether a model holds quantizers or integer kernels, in its graph, sub-graphs or functions."""
    return _quantized_node(model) is not None


def _quantized_node(model: ir.Model) -> ir.Node | None:
    nodes = [
        *ir.traversal.RecursiveGraphIterator(model.graph),
        *(node for function in model.functions.values() for node in function),
    ]
    return next((node for node in nodes if node.op_type in _QUANTIZED_OPS), None)


def _refuse_quantized(model: ir.Model) -> None:
    node = _quantized_node(model)
    if node is not None:
        raise ModelError(
            f"node {node.name!r} ({node.op_type}): the model is quantized already; give the float model"
        )


def _refuse_odd_outputs(model: ir.Model) -> None:
    for value in model.graph.outputs:
        if value.type is not None and not isinstance(value.type, ir.TensorType):
            raise ModelError(f"output {value.name!r} is no tensor; export the model without it")
        if value.is_graph_input():
            raise ModelError(
                f"output {value.name!r} is an input of the graph as it is; take it off the outputs"
            )


def _free_generated_names(graph: ir.Graph) -> None:
    """Rename inner values that have the name of a part of a quantizer."""
    values = ir.convenience.create_value_mapping(graph, include_subgraphs=True)
    for name, value in list(values.items()):
        if name.endswith(_GENERATED) and not value.is_graph_input() and not value.is_graph_output():
            if value.const_value is not None:
                value.const_value = ir.tensor(value.const_value.numpy())
            value.name = next(
                other for i in itertools.count() if (other := f"{name}_float{i or ''}") not in values
            )
            values[value.name] = value
