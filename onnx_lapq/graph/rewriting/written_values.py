"""Move scales of channels from what a convolution writes to its readers, which compute in float.

A quantizer stands behind the convolution, whose kernel writes codes, and the readers, an activation function
that is flat towards an end and computes in float here, read the value in float again. Each channel is divided
by some number in the weights of the convolution, and multiplied by it in a Mul in front of the readers.
"""

from dataclasses import dataclass

import onnx_ir as ir

from onnx_lapq.common.arrays import FloatArray
from onnx_lapq.graph.placement.operators import is_rectifier, mark_scaling
from onnx_lapq.graph.placement.sites import Placement
from onnx_lapq.graph.rewriting.activation_scales import (
    CHANNELS,
    Product,
    divide,
    insert_factors,
    of_channels,
    written_images,
)
from onnx_lapq.method.step_sizes.curve import Curve

__all__ = ["Written", "divide_written", "written_values"]


@dataclass(frozen=True, eq=False)
class Written:
    """A quantized value, [N, C, *spatial], that a convolution writes and an activation function reads.

    Attributes:
        channels: C.
        curve: What the readers compute from it.
        product: The value with what writes it.
    """

    channels: int
    curve: Curve
    product: Product


def written_values(model: ir.Model, placement: Placement) -> list[Written]:
    """The values that convolutions write for activation functions, whose channels may be scaled.

    Args:
        model: A prepared model.
        placement: Its quantizers.
    """
    on_codes = set(placement.arithmetic)
    found = []
    for image in written_images(model, placement):
        site, producer = image.site, image.value.producer()
        if image.channels == 1 or site.curve is None or producer is None or site.writer != producer.name:
            continue
        readers = [node for node, _ in image.value.uses()]
        if any(node.name in on_codes or is_rectifier(node) for node in readers):
            continue
        if readers and all(node.graph is producer.graph for node in readers):
            product = Product(image.value, CHANNELS, (), site.bits, (), image.writers)
            found.append(Written(image.channels, site.curve, product))
    return found


def divide_written(graph: ir.Graph, written: Written, divisors: FloatArray) -> None:
    """Divide the channels of a value, and multiply what its readers read, in place.

    Args:
        graph: Where they stand.
        written: As `written_values` found it.
        divisors: float64 [channels], > 0.
    """
    value = written.product.value
    readers = list(value.uses())
    divide(graph, written.product, divisors)
    factors = of_channels(value, divisors)
    mark_scaling(insert_factors(graph, value, factors, [(use.node, use.idx) for use in readers]))
