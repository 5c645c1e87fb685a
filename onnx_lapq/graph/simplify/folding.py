"""Fold constants, batch norms and pads, drop what is idle: onnxscript's ``optimize_ir``, kept in bounds."""

import math
from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common_passes
from onnxscript import optimizer, rewriter
from onnxscript.rewriter.rules import common as rules

from onnx_lapq.graph.simplify.conditions import settle_conditions
from onnx_lapq.graph.simplify.idioms import rewrite_idioms
from onnx_lapq.graph.simplify.shapes import infer_shapes

__all__ = ["fold"]

_RULES = (
    *rules.mul_by_1_rule.commute(),
    *rules.add_0_rule.commute(),
    rules.sub_0_rule,
    rules.div_by_1_rule,
    rules.dropout_zero_rule,
    rules.dropout_inference_rule,
    rules.two_reshapes_matmul_reshape_rule,
    rules.one_reshape_matmul_reshape_rule,
    rules.cast_constant_of_shape_rule,
    rules.cast_constant_of_shape_without_value_rule,
    rules.collapse_slice_rule,
    rules.collapse_slice2_rule,
    rules.min_min_rule,
    rules.max_max_rule,
    rules.min_max_rule,
    rules.max_min_rule,
    rules.successive_clip_relu_rule,
    rules.successive_relu_clip_rule,
    rules.successive_relu_rule,
    rules.successive_clip_rule,
    rules.cast_cast_rule,
    rules.no_op_cast_rule,
    rules.no_op_expand_rule,
    rules.flatten_to_reshape_rule,
    rules.reshape_reshape_rule,
    rules.no_op_transpose_rule,
    rules.transpose_transpose_rule,
    rules.unsqueeze_unsqueeze_rule,
    rules.squeeze_reshape_1d_rule,
    rules.no_op_dynamic_scatter_nd_rule,
    rules.no_op_static_scatter_nd_rule,
    rules.normalize_pad_format_conv_rule,
    rules.fuse_pad_into_conv_rule,
    rules.fuse_batchnorm_into_conv_rule,
    rules.fuse_batchnorm_into_conv_transpose_rule,
    rules.fuse_batchnorm_into_gemm_rule,
    rules.remove_optional_bias_from_conv_rule,
    rules.remove_optional_bias_from_conv_transpose_rule,
    rules.remove_optional_bias_from_gemm_rule,
)
"""Onnxscript's default rules for float graphs, in its order.

Left out are `slice_split_rule`, which compares all nodes with all others, and makes a Split of Slices that
run as well, and `materialize_reshape_shape_rule`, for which see `onnx_lapq.graph.simplify.idioms.reshapes`.
"""

_LAYERS = ("Conv", "ConvTranspose", "Gemm")
"""Operators that take up pads and batch norms."""

_ROUNDS = 4

_LIFT = common_passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)
"""Constant nodes become initializers, which the rules for batch norms and pads ask for."""

_FOLD_LIMIT = 1 << 30
"""Elements; weights behind Transpose, Cast or Reshape are folded up to this size."""

_SMALL_FILL = 1024
"""Elements of a ConstantOfShape that is folded; larger ones would make the file larger."""
_ALWAYS_LEFT = 1 << 24
"""Elements of folded constants that a model may have beside twice its weights."""
_SHAPE_DATA = 1 << 10
"""Elements of a tensor that may say how large an output is."""


def fold(model: ir.Model) -> None:
    """Simplify a model without functions, in place; constants become initializers of the main graph.

    Args:
        model: Its shapes are inferred, and none is what a file claims: some rules believe them.
    """
    should_fold = _folding_rule(model)
    _LIFT(model)
    for _ in range(_ROUNDS):
        settled = settle_conditions(model)
        folded = optimizer.fold_constants_ir(
            model, input_size_limit=_FOLD_LIMIT, output_size_limit=_FOLD_LIMIT, should_fold=should_fold
        )
        rewritten = _rewritten(model)
        _LIFT(model)
        common_passes.RemoveUnusedNodesPass()(model)
        changed = rewrite_idioms(model)
        common_passes.RemoveUnusedNodesPass()(model)
        if not settled and not folded.modified and not rewritten and not changed:
            break
        infer_shapes(model)
    for last in (
        _LIFT,
        common_passes.LiftSubgraphInitializersToMainGraphPass(),
        common_passes.DeduplicateInitializersPass(),
        common_passes.CommonSubexpressionEliminationPass(),
        common_passes.OutputFixPass(),
        common_passes.NameFixPass(),
    ):
        last(model)


def _rewritten(model: ir.Model) -> bool:
    """Apply the rules; a layer that takes up a pad or a batch norm keeps its name.

    Returns:
        Whether anything changed.
    """
    before = set(model.graph)
    names = {output.name: _layer(node).name for node in before for output in node.outputs}
    changed = rewriter.RewritePass(_RULES)(model).modified
    for node in model.graph:
        if node not in before and node.op_type in _LAYERS:
            node.name = names.get(node.outputs[0].name) or node.name
    return changed


def _layer(node: ir.Node) -> ir.Node:
    """The layer in front of a batch norm, or else the node."""
    source = node.inputs[0] if node.op_type == "BatchNormalization" else None
    producer = None if source is None else source.producer()
    return producer if producer is not None and producer.op_type in _LAYERS else node


def _folding_rule(model: ir.Model) -> Callable[[ir.Node], bool | None]:
    """What onnxscript's constant folding asks about each node of a model.

    Small fills are folded, as exporters compute pads with. All folded constants together take no more than
    twice the weights, so that a few bytes of Tile, Expand or Range do not fill the memory. A node that ONNX's
    own rules refuse stays as it is: onnxruntime may run it.

    Args:
        model: The model, before anything is folded.

    Returns:
        A function of a node: True or False, or None to leave it to the rules of onnxscript.
    """
    constants = [value.const_value for value in model.graph.initializers.values()]
    left = _ALWAYS_LEFT + 2 * sum(constant.size for constant in constants if constant is not None)

    def should_fold(node: ir.Node) -> bool | None:
        nonlocal left
        if node.op_type == "ConstantOfShape":
            return _is_small_fill(node) or None
        if any(value is not None and value.const_value is None for value in node.inputs):
            return None
        try:
            size = _output_elements(node, model.opset_imports.get(node.domain, 0))
        except onnx.shape_inference.InferenceError:
            return False
        if size > left:
            return False
        left -= size
        return None

    return should_fold


def _is_small_fill(node: ir.Node) -> bool:
    shape = None if node.inputs[0] is None else node.inputs[0].const_value
    return shape is not None and bool(np.prod(shape.numpy()) <= _SMALL_FILL)


def _output_elements(node: ir.Node, opset: int) -> int:
    """Elements of the outputs of a node of constant inputs; sizes that no shape tells count as 1."""
    inputs = [(value.name or "", value.const_value) for value in node.inputs if value is not None]
    tensors = {name: tensor for name, tensor in inputs if tensor is not None}
    types = {name: _type(tensor) for name, tensor in tensors.items()}
    data = {name: ir.to_proto(tensor) for name, tensor in tensors.items() if tensor.size <= _SHAPE_DATA}
    schema = onnx.defs.get_schema(node.op_type, opset, node.domain)
    found = onnx.shape_inference.infer_node_outputs(schema, ir.to_proto(node), types, data)
    shapes = [type_proto.tensor_type.shape.dim for type_proto in found.values()]
    return sum(math.prod(size.dim_value or 1 for size in shape) for shape in shapes)


def _type(tensor: ir.TensorProtocol) -> onnx.TypeProto:
    return onnx.helper.make_tensor_type_proto(tensor.dtype, tensor.shape.numpy())
