"""The loss of a run, from the float network's outputs on samples of one shape or of several."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_lapq.calibration.capture import Block, Capture, by_sample
from onnx_lapq.calibration.samples import Samples
from onnx_lapq.common.arrays import FloatArray
from onnx_lapq.config import QuantizationConfig
from onnx_lapq.graph.last_operators import last_operators
from onnx_lapq.method.combined_loss import AUTO, Loss, Reference, combine_blocks, own_loss, parts_for
from onnx_lapq.method.losses import CustomLoss, SampleLoss
from onnx_lapq.method.parts import Part
from onnx_lapq.network.padding import PaddingMasks, has_tokens

__all__ = ["compared_parts", "has_rare_scores", "run_loss"]


def run_loss(
    prepared: ir.Model,
    captured: Capture,
    samples: Samples,
    config: QuantizationConfig,
    function: CustomLoss | None,
) -> Loss:
    """What the search minimises, of outputs as the network gives them.

    Outputs of different shapes get a loss each, of the same parts: those that suit the block with the most
    samples. What is said of all samples, such as their power, is the same for all of them.

    Args:
        prepared: The prepared model.
        captured: The float network's outputs.
        samples: The calibration set.
        config: Its ``loss`` is used.
        function: The caller's own loss, instead.
    """
    blocks, labels = captured.blocks, samples.labels
    if function is not None:
        losses = [own_loss(function, block.outputs, _at(labels, block)) for block in blocks]
    else:
        masks = PaddingMasks(samples)
        parts = _parts(prepared, captured, samples, config)
        losses = combine_blocks(
            parts,
            [Reference(block.outputs, _at(labels, block), masks.of(block.at)) for block in blocks],
        )
    by_rows = losses[0].by_sample
    if len(losses) > 1:
        by_rows = _of_block([block.at.start for block in blocks], [loss.by_sample for loss in losses])
    return replace(losses[0], by_sample=_by_axis(by_rows, captured.axes))


def compared_parts(
    prepared: ir.Model,
    captured: Capture,
    samples: Samples,
    named: str,
    outputs: Mapping[str, np.ndarray] | None = None,
) -> tuple[Part, ...]:
    """What to compare of two models: what the loss would look at, had nobody named one for all outputs.

    Args:
        prepared: The prepared model.
        captured: The float network's outputs.
        samples: The calibration set.
        named: The loss of the options.
        outputs: What other outputs there are, by name.
    """
    block = captured.largest
    return parts_for(
        named if "=" in named else AUTO,
        {**(outputs or {}), **block.outputs},
        last_operators(prepared),
        _at(samples.labels, block),
        tokens=has_tokens(samples),
    )


def has_rare_scores(prepared: ir.Model, captured: Capture, samples: Samples) -> bool:
    """Whether an output has sigmoid scores of positions, of which few are high: of a detector, or of masks.

    It does not depend on the loss that the options name.

    Args:
        prepared: The prepared model.
        captured: The float network's outputs.
        samples: The calibration set.
    """
    outputs = captured.largest.outputs
    parts = compared_parts(prepared, captured, samples, AUTO)
    return any(part.loss == "binary-kl" and outputs[part.output].ndim > 2 for part in parts)


def _parts(
    prepared: ir.Model, captured: Capture, samples: Samples, config: QuantizationConfig
) -> tuple[Part, ...]:
    block = captured.largest
    parts = parts_for(
        config.loss,
        block.outputs,
        last_operators(prepared),
        _at(samples.labels, block),
        tokens=has_tokens(samples),
        soft=config.method == "lapq" and config.rounding == "nearest",
    )
    return tuple(dict.fromkeys(_in_all(part, captured) for part in parts))


def _in_all(part: Part, captured: Capture) -> Part:
    """The part, or all of its output where the samples differ in its rows."""
    if part.axis is None or part.loss not in ("row-mse", "binary-kl"):
        return part
    sizes = {block.outputs[part.output].shape[part.axis] for block in captured.blocks}
    return part if len(sizes) == 1 else Part(part.output, "row-mse")


def _at(values: np.ndarray | None, block: Block) -> np.ndarray | None:
    return None if values is None else values[block.at]


def _by_axis(loss: SampleLoss, axes: Mapping[str, int | None]) -> SampleLoss:
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
