"""Networks beside the float one on a few samples."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_lapq.calibration.capture import by_sample, stacked
from onnx_lapq.calibration.samples import subset
from onnx_lapq.common.arrays import FloatArray
from onnx_lapq.method.closeness import OutputScore, compare_outputs
from onnx_lapq.method.parts import Part
from onnx_lapq.network.bench import Bench
from onnx_lapq.network.float_network import run_batches
from onnx_lapq.network.padding import padding_mask
from onnx_lapq.runtime.session import open_session

__all__ = ["Trial"]


class Trial:
    """Compares networks with the float one on some samples of a bench, in plain onnxruntime.

    Args:
        bench: The float network, the samples and the loss.
        positions: Which of the samples.
        parts: What to look at in the outputs.
    """

    def __init__(self, bench: Bench, positions: npt.NDArray[np.intp], parts: Sequence[Part]) -> None:
        self._bench = bench
        self._positions = positions
        self._parts = parts
        self._samples = subset(bench.samples, positions)
        self._mask = padding_mask(self._samples)
        losses, self._wanted = self._run(bench.network.model)
        self._loss = float(losses.mean())

    def compare(self, model: ir.Model) -> tuple[float, tuple[OutputScore, ...]]:
        """Rise of the loss over that of the float network, mean over the samples, and closeness of the parts.

        Args:
            model: A network as it is written.
        """
        losses, outputs = self._run(model)
        closeness = compare_outputs(self._parts, self._wanted, outputs, self._mask)
        return float(losses.mean()) - self._loss, closeness

    def _run(self, model: ir.Model) -> tuple[FloatArray, dict[str, np.ndarray]]:
        """Losses by sample, and outputs with the samples along the first axis."""
        axes, seen = self._bench.captured.axes, self._bench.captured.names
        names = list(dict.fromkeys([*seen, *(part.output for part in self._parts)]))
        found: dict[str, list[np.ndarray]] = {name: [] for name in names}
        losses = []
        for at, values in self._batches(model, names):
            losses.append(self._bench.loss.by_sample([values[name] for name in seen], self._positions[at]))
            for name in names:
                found[name].append(by_sample(values[name], axes.get(name, 0)))
        return np.concatenate(losses), {name: stacked(parts) for name, parts in found.items()}

    def _batches(
        self, model: ir.Model, names: Sequence[str]
    ) -> Iterator[tuple[slice, dict[str, np.ndarray]]]:
        precise = self._bench.network.target.needs_precise_kernels
        session = open_session(model, precise=precise, provider=self._bench.config.provider)
        return run_batches(session, names, self._samples, self._bench.sizes.plain, 1)
