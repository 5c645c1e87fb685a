"""Rewriting of the float network before it is quantized, where the options ask for it."""

import onnx_ir as ir

from onnx_lapq.config import QuantizationConfig
from onnx_lapq.errors import ConfigError
from onnx_lapq.graph.placement.place import place
from onnx_lapq.graph.placement.sites import Placement
from onnx_lapq.graph.rewriting.dual import double_worst_weights
from onnx_lapq.graph.rewriting.outlier_channels import split_outlier_channels

__all__ = ["transform_weights"]

_BELOW = 7
"""Weights of this many bits and more are left alone: nothing is lost there."""


def transform_weights(prepared: ir.Model, placement: Placement, config: QuantizationConfig) -> Placement:
    """Rewrite the weights of low bits as ``config.transform`` says, in place.

    Returns:
        The quantizers of the rewritten network.

    Raises:
        ConfigError: There is no weight that the transform is for.
    """
    if config.transform == "none":
        return placement
    transform = {"ocs": split_outlier_channels, "dual": double_worst_weights}[config.transform]
    if not transform(prepared, [site for site in placement.weights if site.bits < _BELOW]):
        raise ConfigError(
            f"transform {config.transform!r} finds no weight of fewer than {_BELOW} bits that it can change; "
            "ask for fewer weight bits, or leave it out"
        )
    return place(prepared, config.placement_options())
