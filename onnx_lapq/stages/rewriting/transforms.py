"""Rewriting of the float network before it is quantized, where the options ask for it."""

from typing import Literal

import onnx_ir as ir

from onnx_lapq.errors import ConfigError
from onnx_lapq.graph.placement.options import PlacementOptions
from onnx_lapq.graph.placement.place import place
from onnx_lapq.graph.placement.sites import MANY_BITS, Placement
from onnx_lapq.graph.rewriting.dual import double_worst_weights
from onnx_lapq.graph.rewriting.outlier_channels import split_outlier_channels

__all__ = ["transform_weights"]


def transform_weights(
    prepared: ir.Model,
    placement: Placement,
    name: Literal["none", "ocs", "dual"],
    options: PlacementOptions,
) -> Placement:
    """Rewrite the weights of low bits, in place.

    Args:
        prepared: The prepared model.
        placement: Its quantizers.
        name: What to do to the weights.
        options: What the placement was made with.

    Returns:
        The quantizers of the rewritten network.

    Raises:
        ConfigError: There is no weight that the transform is for.
    """
    if name == "none":
        return placement
    transform = {"ocs": split_outlier_channels, "dual": double_worst_weights}[name]
    if not transform(prepared, [site for site in placement.weights if site.bits < MANY_BITS]):
        raise ConfigError(
            f"--transform {name} finds no weight of fewer than {MANY_BITS} bits that it can change; "
            "ask for fewer weight bits, or leave it out"
        )
    return place(prepared, options)
