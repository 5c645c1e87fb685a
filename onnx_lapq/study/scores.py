"""Task metrics of models in plain onnxruntime, side by side."""

import logging
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import numpy as np
import onnxruntime as ort

from onnx_lapq.calibration.capture import Block, by_sample, stacked
from onnx_lapq.calibration.preprocessing import Preprocessing
from onnx_lapq.calibration.request import Feeding
from onnx_lapq.calibration.samples import Samples, SampleSource, batches
from onnx_lapq.errors import CalibrationError, ModelError
from onnx_lapq.graph.last_operators import last_operators
from onnx_lapq.graph.loading import ModelSource, load
from onnx_lapq.graph.saving import describe_model
from onnx_lapq.method.closeness import compare_outputs, untested
from onnx_lapq.method.combined_loss import combine
from onnx_lapq.method.parts import Part, choose_parts
from onnx_lapq.network.batching import batch_limit, fixed_batch, largest
from onnx_lapq.network.float_network import run_batches
from onnx_lapq.network.output_axes import output_axes
from onnx_lapq.network.padding import has_tokens, padding_mask
from onnx_lapq.network.samples import read_samples
from onnx_lapq.report.record import ModelScore
from onnx_lapq.runtime.latency import rounds
from onnx_lapq.runtime.providers import CPU, find_provider, left_to_cpu
from onnx_lapq.runtime.session import first_run, open_file, open_session
from onnx_lapq.study.accuracy import Labelled, find_labelled
from onnx_lapq.study.metric import Metric, over_shapes

__all__ = ["Scorer", "evaluate_models"]

logger = logging.getLogger(__name__)

_LATENCY_RUNS = 30


def evaluate_models(
    models: Sequence[ModelSource],
    data: SampleSource,
    preprocessing: Preprocessing,
    limit: int | None = None,
    provider: str = CPU,
    metric: Metric | None = None,
    feeding: Feeding | None = None,
) -> list[ModelScore]:
    """Run models over a data set with onnxruntime's default options on one thread.

    Args:
        models: Models with the same inputs; the first is the reference.
        data: A folder of images or arrays, one ``.npz``, or samples in memory.
        preprocessing: For images.
        limit: At most this many samples.
        provider: What runs the models, but for the nodes that only the CPU runs.
        metric: The user's own.
        feeding: What is said of inputs that are not a batch along their first axis.

    Raises:
        InputError: A model or the data cannot be read, or they do not fit.
        RunError: Onnxruntime or the metric failed.
    """
    scorer = Scorer(models[0], data, preprocessing, limit, provider, metric, feeding)
    return [scorer.score(model) for model in models]


class Scorer:
    """Scores models on a data set, one after another; the first one is the reference of the others.

    Args:
        model: One with the models' inputs.
        data: A folder of images or arrays, one ``.npz``, samples in memory, or samples that were read.
        preprocessing: For images.
        limit: At most this many samples.
        provider: What runs the models, but for the nodes that only the CPU runs.
        metric: The user's own.
        feeding: What is said of inputs that are not a batch along their first axis.

    Attributes:
        no_accuracy: Why the labels give no accuracy, in words; None where they do, and where there are none.

    Raises:
        InputError: The model or the data cannot be read, or they do not fit.
    """

    def __init__(
        self,
        model: ModelSource,
        data: SampleSource | Samples,
        preprocessing: Preprocessing,
        limit: int | None = None,
        provider: str = CPU,
        metric: Metric | None = None,
        feeding: Feeding | None = None,
    ) -> None:
        first = load(model)
        if not isinstance(data, Samples):
            data = read_samples(first, data, preprocessing, limit, lambda done: None, feeding or Feeding())
        self._samples = data
        self._batch = fixed_batch(first, self._samples)
        self._provider = find_provider(provider)
        self._metric = metric
        self._first: _First | None = None
        self.no_accuracy: str | None = None

    def check(self, model: ModelSource) -> None:
        """Open a model and look at its inputs.

        Raises:
            InputError: The model cannot be read, or takes other inputs.
        """
        _check_inputs(_name(model), _open(model, self._provider), self._samples)

    def score(self, model: ModelSource) -> ModelScore:
        """Run a model over the data set.

        Raises:
            InputError: The model cannot be read.
            RunError: Onnxruntime or the metric failed.
        """
        session = _open(model, self._provider)
        _check_inputs(_name(model), session, self._samples)
        batch = self._batch or batch_limit(session, self._samples)
        try:
            outputs, blocks = _outputs(session, self._samples, batch, fixed=self._batch is not None)
        except ModelError as error:
            raise ModelError(f"{_name(model)}: {error}") from error
        one = self._samples.batch(0, self._batch or 1)
        (times,) = rounds([session], one, _LATENCY_RUNS, _LATENCY_RUNS, 0.0)
        latency = 1e3 * statistics.median(times)
        self._first = self._first or self._looked_at(model, outputs, blocks)
        score = _score(model, self._provider, latency, outputs, self._first)
        if self._metric is None:
            return score
        value = over_shapes(self._metric, blocks, self._first.blocks, self._samples.labels)
        logger.info("%s: %s is %.6g", _name(model), self._metric.name, value)
        return replace(score, metric=value)

    def _looked_at(
        self, model: ModelSource, outputs: dict[str, np.ndarray], blocks: Sequence[Block]
    ) -> "_First":
        mask = padding_mask(self._samples)
        ends = last_operators(load(model))
        floats = {name: values for name, values in outputs.items() if values.dtype.kind == "f"}
        parts = choose_parts(floats or outputs, ends, self._samples.labels, tokens=has_tokens(self._samples))
        return _First(outputs, blocks, parts, mask, self._labelled(parts, outputs, mask))

    def _labelled(
        self, parts: Sequence[Part], outputs: dict[str, np.ndarray], mask: np.ndarray | None
    ) -> Labelled | None:
        """The output that the labels judge; labels of another kind are for a metric of the user's own."""
        if self._samples.labels is None:
            return None
        try:
            return find_labelled(parts, outputs, self._samples.labels, mask)
        except CalibrationError as error:
            self.no_accuracy = str(error)
            if self._metric is None:
                logger.warning("accuracy is left out: %s", error)
            return None


@dataclass(frozen=True, eq=False)
class _First:
    """What the other models are compared with.

    Attributes:
        outputs: Outputs of the first model on all samples.
        blocks: The same, for samples of each shape.
        parts: What is looked at.
        mask: Which positions are no padding; None where all are real.
        labelled: The output that the labels judge; None without such labels.
    """

    outputs: Mapping[str, np.ndarray]
    blocks: Sequence[Block]
    parts: Sequence[Part]
    mask: np.ndarray | None
    labelled: Labelled | None


def _open(model: ModelSource, provider: str) -> ort.InferenceSession:
    found = load(model)
    if isinstance(model, str | os.PathLike):
        session = open_file(Path(model), provider=provider)
    else:
        session = open_session(found, provider=provider)
    left = left_to_cpu(session)
    if left is not None:
        logger.warning("%s: %s", _name(model), left)
    return session


def _name(model: ModelSource) -> str:
    return os.fspath(model) if isinstance(model, str | os.PathLike) else "the model"


def _check_inputs(name: str, session: ort.InferenceSession, samples: Samples) -> None:
    """Refuse a model that takes something else than the one that the samples were read for."""
    one = samples.batch(0, 1)
    for wanted in session.get_inputs():
        if wanted.name not in one:
            there = ", ".join(repr(each) for each in one)
            raise ModelError(
                f"{name}: wants an input {wanted.name!r}, but the first model's are {there}; compare models "
                "of the same inputs"
            )
        shape, axis = list(one[wanted.name].shape), samples.axes.get(wanted.name, 0)
        pairs = zip(wanted.shape, shape, range(len(shape)), strict=False)
        if len(wanted.shape) != len(shape) or any(
            isinstance(size, int) and size != there and at != axis for size, there, at in pairs
        ):
            shown = ["N" if at == axis else size for at, size in enumerate(shape)]
            raise ModelError(
                f"{name}: input {wanted.name!r} is {wanted.shape}, but the samples for the first model are "
                f"{shown}; compare models of the same inputs"
            )


def _outputs(
    session: ort.InferenceSession, samples: Samples, batch: int, *, fixed: bool
) -> tuple[dict[str, np.ndarray], list[Block]]:
    """Outputs on all samples, and for samples of each shape.

    The first batch shows whether the model can be run at all. A single number for several samples is left
    out.
    """
    names = [output.name for output in session.get_outputs()]
    where = largest(batches(samples.groups, batch))
    first = dict(zip(names, first_run(session, samples.batch(where.start, where.stop)), strict=True))
    found = output_axes(session, samples, where, first, fixed=fixed)
    axes = {name: found.get(name, 0) for name in names if name in found or first[name].ndim}
    if not axes:
        raise ModelError(
            "all outputs are single numbers, none is of one sample; give a model with such outputs"
        )
    runs = [
        Block(at, {name: by_sample(values[name], axis) for name, axis in axes.items()})
        for at, values in run_batches(session, list(axes), samples, batch, workers=1)
    ]
    outputs = _stacked(runs)
    return outputs, _by_group(runs, outputs, samples)


def _stacked(runs: Sequence[Block]) -> dict[str, np.ndarray]:
    """Outputs on all samples along the first axis, where all have one shape; else that axis has length 1."""
    return {name: stacked([block.outputs[name] for block in runs]) for name in runs[0].outputs}


def _by_group(runs: Sequence[Block], outputs: dict[str, np.ndarray], samples: Samples) -> list[Block]:
    """Outputs on the samples of each shape."""
    if len(samples.groups) == 1:
        return [Block(slice(0, len(samples)), outputs)]
    ends = np.cumsum(samples.groups)
    by_group = groupby(runs, lambda block: int(np.searchsorted(ends, block.at.start, side="right")))
    alike = [list(group) for _, group in by_group]
    return [Block(slice(one[0].at.start, one[-1].at.stop), _stacked(one)) for one in alike]


def _score(
    model: ModelSource,
    provider: str,
    latency: float,
    outputs: Mapping[str, np.ndarray],
    first: _First,
) -> ModelScore:
    kl = None
    others = outputs is not first.outputs
    classes = next((part for part in first.parts if part.loss == "kl" and part.output in outputs), None)
    if classes is not None:
        scores, wanted = outputs[classes.output], first.outputs[classes.output]
        every = slice(0, len(scores))
        if others and scores.shape == wanted.shape:
            loss = combine([classes], {classes.output: wanted}, mask=first.mask)
            kl = float(loss.by_sample([scores], every).mean())
    closeness = untested(first.parts)
    if others:
        closeness = compare_outputs(first.parts, first.outputs, outputs, first.mask)
        if missing := dict.fromkeys(part.output for part in first.parts if part.output not in outputs):
            names = ", ".join(repr(name) for name in missing)
            logger.warning(
                "%s has no output %s of the first model, which is not compared",
                _name(model),
                names,
            )
    file = describe_model(model)
    hits = None if first.labelled is None else first.labelled.accuracy(outputs)
    top1, top5, entropy = (None, None, None) if hits is None else (hits.top1, hits.top5, hits.cross_entropy)
    return ModelScore(file.path, file.bytes, provider, latency, top1, top5, entropy, kl, closeness)
