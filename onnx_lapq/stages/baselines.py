"""Step sizes of the whole network by another method than LAPQ (docs/method.md, "Baselines")."""

from collections.abc import Callable
from functools import partial

import numpy as np

from onnx_lapq.config import QuantizationConfig
from onnx_lapq.method.step_sizes.aciq import aciq_step_size
from onnx_lapq.method.step_sizes.clipping import percentile_step_size
from onnx_lapq.method.step_sizes.kld import kld_step_size
from onnx_lapq.network.step_sizes import LayerwiseSteps, Steps

__all__ = ["baseline_steps"]

_MMSE = 2.0


def baseline_steps(
    layerwise: LayerwiseSteps, config: QuantizationConfig, on_tensor: Callable[[int], None]
) -> Steps:
    """Step sizes of all quantizers by ``config.method``, which is not ``lapq``.

    Args:
        layerwise: The quantizers with their distributions.
        config: Options of the run.
        on_tensor: Called with the number of tensors done so far.
    """
    match config.method:
        case "percentile":
            choose = partial(percentile_step_size, percentile=config.percentile)
            return layerwise.chosen_by(choose, on_tensor)
        case "aciq":
            return layerwise.chosen_by(aciq_step_size, on_tensor)
        case "kld":
            return layerwise.chosen_by(kld_step_size, on_tensor)
        case "mmse" | "lp":
            p = _MMSE if config.method == "mmse" else config.p
            return layerwise.for_p([p], on_tensor)[0]
        case "random":
            return _random(layerwise.minmax(), config.seed)
        case _:
            return layerwise.minmax()


def _random(minmax: Steps, seed: int) -> Steps:
    """Every clip value drawn evenly between zero and the largest value."""
    shares = 1.0 - np.random.default_rng(seed).random(len(minmax))
    return {name: steps * share for (name, steps), share in zip(minmax.items(), shares, strict=True)}
