"""OCS: split the input channels of a layer that hold its largest weights (docs/method.md, "Baselines").

``y = W x`` becomes ``y = W' gather(x)``: a Gather repeats the channels of ``x`` whose weights were split.
"""

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnx_lapq.graph.attributes import constant, new_initializer
from onnx_lapq.graph.layer_kinds import kind_of
from onnx_lapq.graph.placement.sites import WeightSite
from onnx_lapq.method.outliers import split_outliers

__all__ = ["split_outlier_channels"]

_SHARE = 0.05
"""Share of a layer's input channels that are split, the largest of the paper."""


def split_outlier_channels(model: ir.Model, sites: Sequence[WeightSite]) -> list[str]:
    """Split channels of every layer whose weight has no other reader, in place.

    Args:
        model: A prepared model. It computes the same as before.
        sites: Its weight quantizers.

    Returns:
        Names of the layers that were changed: Conv without groups, Gemm, and MatMul with a matrix.
    """
    nodes = {node.name: node for node in model.graph}
    changed = []
    for site in sites:
        layer = kind_of(nodes[site.layers[0]])
        axes = layer.summed_axes if layer is not None and len(site.layers) == 1 else None
        if layer is not None and axes is not None:
            _split(model.graph, layer.node, axes, levels=(1 << (site.bits - 1)) - 1)
            changed.append(site.layers[0])
    return changed


def _split(graph: ir.Graph, node: ir.Node, axes: tuple[int, int], levels: int) -> None:
    x, weight = node.inputs[0], node.inputs[1]
    assert x is not None
    assert weight is not None
    tensor = constant(weight)
    assert tensor is not None
    moved = np.moveaxis(tensor.numpy().astype(np.float64), axes[1], 0)
    rows = moved.reshape(len(moved), -1)
    sources, parts = split_outliers(rows, math.ceil(_SHARE * len(rows)), levels)
    split = np.moveaxis(parts.reshape(-1, *moved.shape[1:]), 0, axes[1]).astype(np.float32)
    weight.const_value, weight.shape = ir.tensor(np.ascontiguousarray(split)), ir.Shape(split.shape)
    channels = new_initializer(graph, f"{weight.name}_channels", sources)
    gather = ir.node("Gather", [x, channels], {"axis": axes[0]}, name=f"{node.name}_channels")
    repeated = gather.outputs[0]
    repeated.name, repeated.type = f"{node.name}_repeated", ir.TensorType(ir.DataType.FLOAT)
    if x.shape is not None:
        sizes = list(x.shape)
        sizes[axes[0]] = len(sources)
        repeated.shape = ir.Shape(sizes)
    graph.insert_before(node, gather)
    node.replace_input_with(0, repeated)
