"""Every method at every pair of bit widths in one table, beside models that other tools quantized."""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

from onnx_lapq.common.short_names import short_names
from onnx_lapq.config import MethodName, QuantizationConfig
from onnx_lapq.graph.placement.options import FLOAT_BITS
from onnx_lapq.method.closeness import worst
from onnx_lapq.pipeline import quantize
from onnx_lapq.report.record import ModelScore
from onnx_lapq.study.comparison_table import Row, Table, digest, fingerprint
from onnx_lapq.study.metric import Metric
from onnx_lapq.study.scores import Scorer

__all__ = ["DEFAULT_PAIRS", "cases", "compare_models"]

DEFAULT_PAIRS = ((8, 8), (8, 4), (8, 3), (4, 4), (32, 4), (32, 2), (4, 32))
"""Bits of weights and activations, as in the paper's tables."""


def cases(
    base: QuantizationConfig,
    methods: Sequence[MethodName],
    pairs: Sequence[tuple[int, int]],
    corrections: Sequence[bool],
) -> list[QuantizationConfig]:
    """The runs of a comparison, in the order of its rows.

    Args:
        base: Options that all have in common.
        methods: Ways to choose step sizes.
        pairs: Bits of weights and activations.
        corrections: With and without bias correction; float weights take the first one alone.

    Raises:
        ConfigError: A pair of bit widths makes no sense, or the target does not take it.
    """
    return [
        replace(base, method=method, weight_bits=w, activation_bits=a, bias_correction=correction).resolved()
        for (w, a), method in product(pairs, methods)
        for correction in (corrections if w != FLOAT_BITS else corrections[:1])
    ]


def compare_models(
    model: Path,
    calibration: Path,
    test: Path | None,
    runs: Sequence[QuantizationConfig],
    others: Sequence[Path],
    output: Path,
    on_row: Callable[[int], None],
    metric: Metric | None = None,
) -> list[Row]:
    """Quantize a model in every way and score the results in plain onnxruntime.

    ``OUTPUT.json`` and ``OUTPUT.csv`` are rewritten after every row. Rows that an earlier, interrupted
    comparison of the same files and options left there are not computed again.

    Args:
        model: The float model.
        calibration: Samples for the runs.
        test: Samples for the scores; None takes the calibration samples.
        runs: Options of each run, at least one.
        others: Models with the same inputs, quantized by other tools.
        output: Where the table goes, without the suffix.
        on_row: Called with the number of rows done so far.
        metric: The user's own, for the scores.

    Returns:
        The float model's row, one for each run, one for each of ``others``.

    Raises:
        InputError: A file, the samples, an option or the output path is no good.
        RunError: Onnxruntime failed on sound input.
    """
    measured = None if metric is None else metric.name
    table = Table(output, (model, calibration, test or calibration), on_row, measured)
    first = runs[0]
    scorer = Scorer(
        model, test or calibration, first.preprocessing, None, first.provider, metric, first.feeding()
    )
    for path in others:
        scorer.check(path)
    reference = scorer.score(model)
    table.add("float", lambda: _row("float", (FLOAT_BITS, FLOAT_BITS), reference))
    for config in runs:
        table.add(digest(config.deciding()), partial(_quantized, model, calibration, config, scorer))
    for name, path in zip(short_names(others), others, strict=True):
        table.add(fingerprint(path), partial(_by_another_tool, name, path, scorer))
    return table.rows


def _quantized(model: Path, calibration: Path, config: QuantizationConfig, scorer: Scorer) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "model.onnx"
        started = time.perf_counter()
        report = quantize(model, calibration, config).save(output)
        seconds = time.perf_counter() - started
        score = scorer.score(output)
    last = report.stages[-1]
    return replace(
        _row(config.method, (config.weight_bits, config.activation_bits), score),
        bias_correction=config.bias_correction if config.weight_bits != FLOAT_BITS else None,
        loss=last.loss,
        guard_loss=last.guard_loss,
        evaluations=report.evaluations,
        seconds=seconds,
    )


def _by_another_tool(name: str, path: Path, scorer: Scorer) -> Row:
    return _row(name, (None, None), scorer.score(path))


def _row(method: str, bits: tuple[int | None, int | None], score: ModelScore) -> Row:
    return Row(
        method=method,
        weight_bits=bits[0],
        activation_bits=bits[1],
        bytes=score.bytes,
        latency_ms=score.latency_ms,
        top1=score.top1,
        top5=score.top5,
        cross_entropy=score.cross_entropy,
        kl=score.kl,
        metric=score.metric,
        worst_db=None if (furthest := worst(score.outputs)) is None else furthest.lowest_db,
    )
