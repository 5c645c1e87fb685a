"""What exporters spell out, written as the operators and constants that it stands for."""

import onnx_ir as ir

from onnx_lapq.graph.simplify.idioms.gelus import name_gelus
from onnx_lapq.graph.simplify.idioms.gemms import write_gemms
from onnx_lapq.graph.simplify.idioms.hard_activations import name_hard_activations
from onnx_lapq.graph.simplify.idioms.layer_norms import name_layer_norms
from onnx_lapq.graph.simplify.idioms.reshapes import write_reshapes
from onnx_lapq.graph.simplify.idioms.slices import drop_whole_slices
from onnx_lapq.graph.simplify.idioms.softmaxes import name_softmaxes
from onnx_lapq.graph.simplify.idioms.steps_before_layers import merge_steps_before_layers
from onnx_lapq.graph.simplify.idioms.steps_behind_layers import merge_steps_behind_layers

__all__ = ["rewrite_idioms"]

_REWRITES = (
    write_reshapes,
    drop_whole_slices,
    name_hard_activations,
    name_layer_norms,
    name_gelus,
    name_softmaxes,
    write_gemms,
    merge_steps_behind_layers,
    merge_steps_before_layers,
)


def rewrite_idioms(model: ir.Model) -> bool:
    """Apply every rewrite once, in place.

    Args:
        model: Its shapes are inferred, its constants are initializers.

    Returns:
        Whether anything changed.
    """
    changed = [rewrite(model) for rewrite in _REWRITES]
    return any(changed)
