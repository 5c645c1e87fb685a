"""A layer that only reads a position off probabilities is told from layers that were trained."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from small_models import Builder

from onnx_lapq.graph.placement.options import PlacementOptions, parse_bits_rule
from onnx_lapq.graph.placement.place import place
from onnx_lapq.graph.placement.sites import Placement
from onnx_lapq.graph.placement.soft_argmax import is_soft_argmax
from onnx_lapq.graph.simplify.prepare import prepare

DISTANCES = np.arange(8, dtype=np.float32)


def head(distances: np.ndarray = DISTANCES) -> onnx.ModelProto:
    """Image [N, 3, 8, 8] -> the sides of a box at 64 positions, as YOLOv8 reads them off probabilities."""
    b = Builder()
    sides = b.conv(b.relu(b.conv(b.relu(b.conv("image", 3, 8)), 8, 8)), 8, 32, size=1)
    flat = b.node("Reshape", [sides, b.constant(np.array([0, 4, 8, 64], np.int64))])
    shares = b.node("Softmax", [b.node("Transpose", [flat], perm=[0, 2, 1, 3])], axis=1)
    mean = b.node("Conv", [shares, b.constant(distances.reshape(1, 8, 1, 1))])
    b.node("Reshape", [mean, b.constant(np.array([0, 4, 64], np.int64))], "boxes")
    return b.model({"image": ["N", 3, 8, 8]}, {"boxes": ["N", 4, 64]})


def placed(**options: object) -> Placement:
    return place(prepare(ir.from_proto(head())), PlacementOptions(**options))


@pytest.mark.parametrize(
    ("op_type", "weight", "is_one"),
    [
        ("Conv", DISTANCES.reshape(1, 8, 1, 1), True),
        ("MatMul", np.linspace(-1, 1, 8, dtype=np.float32)[:, None], True),
        ("Gemm", DISTANCES[:, None], True),
        ("Conv", np.float32([0, 1, 2, 4]).reshape(1, 4, 1, 1), False),
        ("Conv", np.ones((1, 8, 1, 1), np.float32), False),
        ("MatMul", np.stack([DISTANCES, DISTANCES], axis=1), False),
    ],
)
def test_one_row_of_even_steps_behind_a_softmax(op_type, weight, is_one):
    b = Builder()
    b.node(op_type, [b.node("Softmax", ["x"], axis=1), b.constant(weight)], "y")
    shape = [None] * weight.ndim
    nodes = list(ir.from_proto(b.model({"x": shape}, {"y": shape})).graph)
    assert [is_soft_argmax(node) for node in nodes] == [False, is_one]


def test_without_a_softmax_it_is_a_layer():
    b = Builder()
    b.node("MatMul", [b.relu("x"), b.constant(DISTANCES[:, None])], "y")
    model = ir.from_proto(b.model({"x": ["N", 8]}, {"y": ["N", 1]}))
    assert not any(map(is_soft_argmax, model.graph))


def test_it_stays_in_float_and_the_layer_before_it_is_the_last():
    placement = placed(weight_bits=4, activation_bits=4)
    assert [site.bits for site in placement.weights] == [8, 4, 8]
    assert [site.bits for site in placement.activations if site.searched] == [8, 4, 8]
    assert sum("position" in node.reason for node in placement.in_float) == 1


def test_left_out_by_name_it_still_is_not_the_last_layer():
    name = next(node.name for node in prepare(ir.from_proto(head())).graph if is_soft_argmax(node))
    assert [site.bits for site in placed(weight_bits=4, exclude=(name,)).weights] == [8, 4, 8]


def test_a_rule_gives_it_bits_all_the_same():
    name = next(node.name for node in prepare(ir.from_proto(head())).graph if is_soft_argmax(node))
    placement = placed(bits=(parse_bits_rule(f"{name}=w4a8"),))
    assert [site.bits for site in placement.weights] == [8, 8, 8, 4]
