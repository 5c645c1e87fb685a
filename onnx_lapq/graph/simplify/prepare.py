"""Simplify a float model: the graph that placement and calibration see.

Steps of `prepare`; each is a pass of onnx-ir or onnxscript, or a module beside this one:

1. Refuse a model that is quantized already (`quantized_already`).
2. Make constants of inputs that always have one number (`set_inputs`). Inline functions; an initializer that
   is also a graph input becomes a constant.
3. Forget the shapes that the file claims for inner values, which may be wrong (`shapes`).
4. Bring the opset into the range that onnxruntime quantizes (`opsets`), with the operators that converters
   get wrong (`legacy_operators`); turn float16 into float32 (`half_precision`); infer shapes, behind unknown
   operators with the help of onnxruntime (`unknown_types`).
5. Lift constants to initializers; fold constants, control flow on constants (`conditions`), batch norms and
   pads into convolutions, drop identities and dead nodes (`folding`), and write exporters' idioms as what
   they stand for (`idioms`).
6. Write global average pooling and the bounds of Clip and Range one way (`idioms`), give layers a bias of
   their own (`biases`).
7. Infer shapes, lower the opset and the IR version as far as the operators allow (`lowest_opset`).
8. Give every node a unique name, and no value the name of a part of a quantizer.

The graph's inputs and outputs keep their names, types and order.
"""

import itertools
from collections.abc import Mapping

import onnx_ir as ir
import onnx_ir.passes.common as common_passes

from onnx_lapq.errors import ModelError, model_errors
from onnx_lapq.graph.operator_sets import MINIMUM_OPSET
from onnx_lapq.graph.simplify.biases import give_layers_a_bias
from onnx_lapq.graph.simplify.folding import fold
from onnx_lapq.graph.simplify.half_precision import widen_half
from onnx_lapq.graph.simplify.idioms.bounds import flatten_bounds
from onnx_lapq.graph.simplify.idioms.pooling import name_global_pooling
from onnx_lapq.graph.simplify.lowest_opset import use_lowest_opset
from onnx_lapq.graph.simplify.opsets import ONNXSCRIPT, lower_opset, raise_opset
from onnx_lapq.graph.simplify.quantized_already import refuse_quantized
from onnx_lapq.graph.simplify.set_inputs import set_inputs
from onnx_lapq.graph.simplify.shapes import claim_output_shapes, forget_claimed_shapes, infer_shapes
from onnx_lapq.graph.simplify.unknown_types import infer_unknown_types
from onnx_lapq.graph.size_limits import check_bytes, check_shapes

__all__ = ["prepare"]

_OWN_CONSTANTS = 4
"""The first IR version whose initializers need not be inputs of the graph."""

_GENERATED = (
    *("_codes", "_codes_8bit", "_dequantized", "_input"),
    *("_limits", "_packed", "_rows", "_scale", "_unquantized", "_zero_point"),
)
"""Ends of the names that quantizers and probes give to their values."""


def prepare(
    model: ir.Model,
    *,
    fold_codes: bool = False,
    values: Mapping[str, float] | None = None,
    least_opset: int = MINIMUM_OPSET,
) -> ir.Model:
    """Simplify a float model in place, without changing what it computes.

    Args:
        model: A model as `onnx_lapq.graph.loading.load` returns it.
        fold_codes: Make float weights of weights that are stored as integer codes, in place of refusing them.
        values: Numbers that inputs always have, by name; these inputs stay, and nothing reads them.
        least_opset: What it is to be raised to at least.

    Returns:
        The same model object, rewritten.

    Raises:
        ModelError: The model is quantized already, gives an input as output, is of an opset that cannot be
            converted, contradicts itself, or has a tensor that no memory holds.
    """
    refuse_quantized(model, fold_codes=fold_codes)
    _refuse_odd_outputs(model)
    set_inputs(model, values or {})
    with model_errors("the model cannot be simplified"):
        _simplify(model, least_opset)
    check_shapes(model)
    check_bytes(model)
    return model


def _simplify(model: ir.Model, least_opset: int) -> None:
    common_passes.InlinePass()(model)
    common_passes.RemoveInitializersFromInputsPass()(model)
    claims = forget_claimed_shapes(model)
    lower_opset(model)
    raise_opset(model, least_opset)
    model.ir_version = max(model.ir_version, _OWN_CONSTANTS)
    widen_half(model)
    infer_shapes(model)
    if any(node.domain != "" for node in model.graph):
        _infer_unknown(model)
    with ONNXSCRIPT:
        fold(model)
    common_passes.RemoveInitializersFromInputsPass()(model)
    flatten_bounds(model)
    infer_shapes(model)
    _infer_unknown(model)
    name_global_pooling(model)
    give_layers_a_bias(model)
    infer_shapes(model)
    claim_output_shapes(model, claims)
    use_lowest_opset(model, least_opset)
    common_passes.ClearMetadataAndDocStringPass()(model)
    common_passes.NameFixPass()(model)
    _free_generated_names(model.graph)
    common_passes.TopologicalSortPass()(model)


def _infer_unknown(model: ir.Model) -> None:
    if infer_unknown_types(model):
        infer_shapes(model)


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
