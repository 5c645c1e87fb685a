"""The second stage: codes of the weights by compensated rounding (docs/method.md, "Compensated rounding")."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from onnx_lapq.network.bench import Bench
from onnx_lapq.network.layer_windows import rounded_layers
from onnx_lapq.progress import Ticker
from onnx_lapq.stages.found import Attempt, Found, Save, paced
from onnx_lapq.stages.measure import guard_share, measured
from onnx_lapq.stages.rounder import Rounder

__all__ = ["round_weights", "rounding_note"]


def round_weights(bench: Bench, found: Found, save: Save) -> Found:
    """Round the weights from every start, and keep the outcome of the lowest loss over all samples.

    Where the options round to nearest there is no start to round from. Where time is up, the layers that are
    left are rounded to nearest, at the step sizes of their start, or all layers where that is better.
    """
    if not found.attempts:
        _drop_outputs(bench)
        return found
    rounder = Rounder(bench)
    total = len(rounder.layers)
    with bench.clock.phase("rounding", len(found.attempts) * total) as tick:
        for index, attempt in enumerate(found.attempts):
            if attempt.record is None:
                ticker = partial(_tick_on, tick, index * total)
                is_last = index == len(found.attempts) - 1
                found = _round_from(bench, rounder, found, attempt, save, ticker, is_last=is_last)
    _drop_outputs(bench)
    found = _choose(bench, found, total)
    save(found)
    return found


def _drop_outputs(bench: Bench) -> None:
    """Give back what calibration has left for rounding."""
    if bench.outputs is not None:
        for layer in bench.outputs.layers:
            bench.outputs.drop(layer)


def rounding_note(bench: Bench, found: Found) -> str | None:
    """A sentence where time was up before all layers were rounded."""
    if bench.config.rounding != "compensated":
        return None
    layers = rounded_layers(bench.network.layers.values())
    done = sum(layer.site.name in found.codes for layer in layers)
    if done == len(layers):
        return None
    return (
        f"time was up (--max-minutes {bench.config.max_minutes:g}): {done} of {len(layers)} layers have "
        "compensated codes, the others the nearest ones"
    )


def _tick_on(tick: Ticker, before: int, done: int) -> None:
    tick(before + done)


def _round_from(
    bench: Bench,
    rounder: Rounder,
    found: Found,
    attempt: Attempt,
    save: Save,
    tick: Callable[[int], None],
    *,
    is_last: bool,
) -> Found:
    """Round all layers from one start; every newly rounded layer is saved."""
    save_now_and_then, latest = paced(save), attempt

    def on_layer(done: int, attempt: Attempt) -> None:
        nonlocal latest
        latest = attempt
        tick(done)
        save_now_and_then(found.with_attempt(attempt, bench.evaluations))

    try:
        attempt = rounder.round(attempt, on_layer, is_last=is_last)
    except BaseException:  # an interrupt, too
        save(found.with_attempt(latest, bench.evaluations))
        raise
    if not attempt.codes and bench.out_of_time():
        return found
    record = measured(bench.with_codes(attempt.codes), "compensated", attempt.steps)
    done = found.with_attempt(replace(attempt, record=record), bench.evaluations)
    save(done)
    return done


def _choose(bench: Bench, found: Found, total: int) -> Found:
    """The attempt of the lowest loss; the others are on record as given up.

    One that there was no time to end, with codes for fewer layers than all, has to be better than its start:
    compensation pays once the layers behind make up for the errors as well.
    """
    share, start = guard_share(bench), found.stages[-1]
    records = [
        (attempt, attempt.record)
        for attempt in found.attempts
        if attempt.record is not None
        and (len(attempt.codes) == total or attempt.record.over_all(share) < start.over_all(share))
    ]
    if not records:
        return replace(found, attempts=())
    best, kept = min(records, key=lambda pair: pair[1].over_all(share))
    given_up = tuple(
        replace(record, stage=f"compensated from p={attempt.p:.4g}")
        for attempt, record in records
        if attempt is not best
    )
    kept = replace(kept, evaluations=found.evaluations)
    return replace(
        found, start=best.steps, codes=best.codes, attempts=(), stages=(*found.stages, *given_up, kept)
    )
