"""Move scales of channels from what a convolution writes to its readers, which compute in float.

A quantizer stands behind the convolution, whose kernel writes codes, and the readers, an activation function
that is flat towards an end and computes in float here, read the value in float again. Each channel is divided
by some number in the weights of the convolution, and multiplied by it in a Mul in front of the readers.
"""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnx_lapq.common.arrays import FloatArray
from onnx_lapq.graph.placement.operators import is_rectifier, mark_scaling
from onnx_lapq.graph.placement.sites import ActivationSite, Placement
from onnx_lapq.graph.rewriting.activation_scales import (
    CHANNELS,
    Product,
    channels_of,
    divide,
    insert_factors,
    writers,
)

__all__ = ["Written", "divide_written", "written_values"]


@dataclass(frozen=True, eq=False)
class Written:
    """A quantized value, [N, C, *spatial], that a convolution writes and an activation function reads.

    Attributes:
        channels: C.
        site: Its quantizer.
        product: The value with what writes it.
    """

    channels: int
    site: ActivationSite
    product: Product


def written_values(model: ir.Model, placement: Placement) -> list[Written]:
    """The values that convolutions write for activation functions, whose channels may be scaled.

    Args:
        model: A prepared model.
        placement: Its quantizers.
    """
    values = ir.convenience.create_value_mapping(model.graph, include_subgraphs=False)
    weights = {name: site for site in placement.weights for name in site.layers}
    on_codes = set(placement.arithmetic)
    found = []
    for site in placement.activations:
        value = values[site.value]
        producer, channels = value.producer(), channels_of(value)
        if channels in (None, 1) or producer is None or site.writer != producer.name:
            continue
        readers = [node for node, _ in value.uses()]
        if site.curve is None or site.moved or site.is_wide:
            continue
        if any(node.name in on_codes or is_rectifier(node) for node in readers):
            continue
        if any(node.graph is not producer.graph for node in readers):
            continue
        written = tuple(writers(value, CHANNELS, weights))
        if readers and written:
            product = Product(value, CHANNELS, (), site.bits, (), written)
            found.append(Written(channels, site, product))
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
    assert value.shape is not None
    factors = divisors.astype(np.float32).reshape(1, -1, *[1] * (len(value.shape) - 2))
    mark_scaling(insert_factors(graph, value, factors, [(use.node, use.idx) for use in readers]))
