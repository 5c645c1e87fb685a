"""The loss of a run, from the float network's outputs on samples of one shape or of several."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from onnx_lapq.calibration.capture import Block, by_sample
from onnx_lapq.common.arrays import FloatArray
from onnx_lapq.config import QuantizationConfig
from onnx_lapq.method.losses import CustomLoss, SampleLoss, custom_loss, default_loss, make_loss

__all__ = ["block_loss", "loss_by_sample"]


def block_loss(
    blocks: Sequence[Block],
    labels: np.ndarray | None,
    config: QuantizationConfig,
    function: CustomLoss | None,
) -> tuple[str, SampleLoss]:
    """Name of the loss of a run, and the loss of outputs with the samples along their first axis.

    Outputs of different shapes get a loss each, of one name: that of the block with the most samples.

    Args:
        blocks: The float network's outputs.
        labels: Those of all samples, or None.
        config: Its ``loss`` is used.
        function: The caller's own loss, instead.
    """
    largest = max(blocks, key=lambda block: block.at.stop - block.at.start)
    name = "custom" if function is not None else _name(list(largest.outputs.values()), config)

    def one(block: Block) -> SampleLoss:
        own = None if labels is None else labels[block.at]
        if function is not None:
            return custom_loss(function, block.outputs, own)
        return make_loss(name, list(block.outputs.values()), own)  # type: ignore[arg-type]

    losses = [one(block) for block in blocks]
    return name, losses[0] if len(losses) == 1 else _of_block([block.at.start for block in blocks], losses)


def loss_by_sample(loss: SampleLoss, axes: Mapping[str, int | None]) -> SampleLoss:
    """The loss of outputs whose samples lie along these axes."""

    def sample_loss(outputs: Sequence[np.ndarray], samples: slice) -> FloatArray:
        return loss(list(map(by_sample, outputs, axes.values())), samples)

    return sample_loss


def _of_block(starts: Sequence[int], losses: Sequence[SampleLoss]) -> SampleLoss:
    """The loss of the block that samples lie in; those of one call lie in one."""

    def sample_loss(outputs: Sequence[np.ndarray], samples: slice | npt.NDArray[np.intp]) -> FloatArray:
        first = samples.start if isinstance(samples, slice) else samples[0]
        block = int(np.searchsorted(starts, first, side="right")) - 1
        start = starts[block]
        inside = slice(first - start, samples.stop - start) if isinstance(samples, slice) else samples - start
        return losses[block](outputs, inside)

    return sample_loss


def _name(reference: list[np.ndarray], config: QuantizationConfig) -> str:
    soft = config.method == "lapq" and config.rounding == "nearest"
    return default_loss(reference, soft) if config.loss == "auto" else config.loss
