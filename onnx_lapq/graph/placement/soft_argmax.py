"""Layers that read a position off probabilities: a soft argmax.

Heads of detectors (YOLOv8, GFL, PP-YOLOE) give every side of a box as the probabilities of some distances,
and a layer of one row, 0, 1, 2 ..., makes their mean. Nobody trained it, and it is no work: on integers it
would cost two roundings of the box, and the layers in front of it would no longer be the last ones.
"""

import numpy as np
import onnx_ir as ir

from onnx_lapq.graph.attributes import constant
from onnx_lapq.graph.layer_kinds import kind_of
from onnx_lapq.graph.placement.operators import is_data_movement

__all__ = ["is_soft_argmax"]

_LEAST_POSITIONS = 3


def is_soft_argmax(node: ir.Node) -> bool:
    """Whether a layer has one row of evenly spaced numbers and reads a Softmax, moved at most."""
    layer = kind_of(node)
    if layer is None or layer.weight is None or not layer.multiplies or not _reads_a_softmax(node):
        return False
    tensor = constant(layer.weight)
    assert tensor is not None
    rows = layer.rows(tensor.numpy())
    if len(rows) != 1 or rows.size < _LEAST_POSITIONS:
        return False
    steps = np.diff(rows[0].astype(np.float64))
    return bool(steps[0] != 0 and np.allclose(steps, steps[0], rtol=1e-3, atol=0))


def _reads_a_softmax(node: ir.Node) -> bool:
    value = node.inputs[0]
    producer = None if value is None else value.producer()
    while producer is not None and is_data_movement(producer):
        value = producer.inputs[0]
        producer = None if value is None else value.producer()
    return producer is not None and producer.op_type == "Softmax" and producer.domain == ""
