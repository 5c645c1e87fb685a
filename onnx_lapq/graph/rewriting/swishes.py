"""Move scales of channels through an activation function that multiplies a value by a gate made of it.

HardSwish is x h(x) with a HardSigmoid h, SiLU x s(x) with a Sigmoid s. Where a convolution writes x, and
depthwise convolutions read the product, each channel of x is divided by some number in the weights of the
first, the gate reads x times these numbers, so that it stays as it is, and the product, which is divided as
well, meets weights that are multiplied by them.
"""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnx_lapq.common.arrays import Float32Array, FloatArray
from onnx_lapq.graph.layer_kinds import LayerKind
from onnx_lapq.graph.placement.operators import mark_scaling, own_gate
from onnx_lapq.graph.placement.sites import ActivationSite, Placement
from onnx_lapq.graph.rewriting.activation_scales import (
    CHANNELS,
    Product,
    divide,
    insert_factors,
    of_channels,
    scalable_layer,
    written_images,
)

__all__ = ["Swish", "divide_swish", "swishes"]


@dataclass(frozen=True, eq=False)
class Swish:
    """A quantized value, [N, C, *spatial], that a convolution writes, times a gate made of it.

    Attributes:
        channels: C.
        lowest: Values of it that are lower count as this.
        gate: The HardSigmoid or the Sigmoid.
        product: The value with what writes it, and the depthwise convolutions that read it times its gate.
        bits: Of the quantizer of the product.
    """

    channels: int
    lowest: float
    gate: ir.Node
    product: Product
    bits: int

    def gates(self, values: Float32Array) -> Float32Array:
        """What the gate makes of values."""
        if self.gate.op_type == "Sigmoid":
            with np.errstate(over="ignore"):
                return (1 / (1 + np.exp(-values))).astype(np.float32)
        slope, offset = (
            self.gate.attributes.get_float(name, left) for name, left in (("alpha", 0.2), ("beta", 0.5))
        )
        gates: Float32Array = np.clip(np.float32(slope) * values + np.float32(offset), 0, 1)
        return gates


def swishes(model: ir.Model, placement: Placement) -> list[Swish]:
    """The values times gates made of them whose channels may be scaled.

    Args:
        model: A prepared model.
        placement: Its quantizers.
    """
    sites = {site.value: site for site in placement.activations}
    weights = {name: site for site in placement.weights for name in site.layers}
    found = []
    for image in written_images(model, placement):
        gate, result = own_gate(image.value) or (None, None)
        site = None if result is None else sites.get(result.name or "")
        layers = () if site is None or result is None else _depthwise_readers(result, site)
        if gate is None or site is None or not layers:
            continue
        own = tuple(weights.get(layer.node.name or "") for layer in layers)
        product = Product(image.value, CHANNELS, layers, image.site.bits, own, image.writers)
        lowest = -np.inf if image.site.curve is None else image.site.curve.lowest
        found.append(Swish(image.channels, lowest, gate, product, site.bits))
    return found


def divide_swish(graph: ir.Graph, swish: Swish, divisors: FloatArray) -> None:
    """Divide the channels of a value, and multiply what its gate reads and the weights behind them, in place.

    Args:
        graph: Where they stand.
        swish: As `swishes` found it.
        divisors: float64 [channels], > 0.
    """
    divide(graph, swish.product, divisors)
    value = swish.product.value
    mark_scaling(insert_factors(graph, value, of_channels(value, divisors), [(swish.gate, 0)]))


def _depthwise_readers(value: ir.Value, site: ActivationSite) -> tuple[LayerKind, ...]:
    """The depthwise convolutions that alone read a value through its one quantizer; none elsewhere."""
    producer, readers = value.producer(), list(value.uses())
    home = None if producer is None else producer.graph
    if site.edges or site.moved or site.after is not None or site.is_wide or value.is_graph_output():
        return ()
    layers = tuple(layer for node, at in readers if at == 0 and (layer := scalable_layer(node)) is not None)
    fit = all(layer.is_depthwise and layer.node.graph is home for layer in layers)
    alike = len({layer.shape[2:] for layer in layers}) == 1
    return layers if fit and alike and len(layers) == len(readers) else ()
