"""The forecast, on searches that were recorded: W4A4, step by step, with the seconds that they took."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from onnx_lapq.method.powell.forecast import forecast
from onnx_lapq.method.powell.search_state import SearchOptions, SearchState

RUNS = json.loads((Path(__file__).parent / "recorded_searches.json").read_text())
OPTIONS = SearchOptions(negligible=1e-3, patience=32)


def state(run, record) -> SearchState:
    lines = len(run["costs"])
    fields = {name: value for name, value in record.items() if name != "seconds"}
    return SearchState(
        start=(1.0,) * lines,
        point=(0.0,) * lines,
        guard=None,
        lowest_guard=None,
        directions=tuple(range(lines)),
        steps=(0.1,) * lines,
        sweep_point=(0.0,) * lines,
        largest_drop=0.0,
        largest_line=0,
        history=(),
        **fields,
    )


def at_half(run):
    last = run["states"][-1]["seconds"]
    return next(record for record in run["states"] if record["seconds"] >= last / 2)


@pytest.mark.parametrize("name", RUNS)
def test_half_way_the_evaluations_and_the_time_left_are_told_within_a_factor_of_two(name):
    run = RUNS[name]
    now, last = at_half(run), run["states"][-1]
    found = forecast(state(run, now), OPTIONS, run["costs"])
    assert 0.5 < found.evaluations / last["evaluations"] < 2
    left = now["seconds"] / found.spent * found.left
    assert 0.5 < left / (last["seconds"] - now["seconds"]) < 2


@pytest.mark.parametrize("name", RUNS)
def test_at_the_end_nothing_is_left(name):
    run = RUNS[name]
    record = {**run["states"][-1], "sweep": OPTIONS.max_sweeps - 1, "line": len(run["costs"]), "idle": 0}
    found = forecast(state(run, record), OPTIONS, run["costs"])
    assert found.evaluations == record["evaluations"]
    assert found.left == 0


def test_a_cap_is_never_exceeded():
    run = RUNS["ResNet-18"]
    now = at_half(run)
    free = forecast(state(run, now), OPTIONS, run["costs"])
    most = now["evaluations"] + (free.evaluations - now["evaluations"]) // 2
    capped = forecast(state(run, now), replace(OPTIONS, max_evaluations=most), run["costs"])
    assert capped.evaluations == most
    assert capped.left == pytest.approx(free.left / 2, rel=0.02)


def test_without_another_sweep_in_sight_what_is_left_is_the_rest_of_this_one():
    run = {"costs": [3.0, 2.0, 1.0]}
    record = {"sweep": 1, "line": 2, "idle": 2, "evaluations": 11, "loss": 0.5, "sweep_loss": 0.5}
    record["last_gain"] = 0.0
    found = forecast(state(run, record), OPTIONS, run["costs"])
    assert (found.evaluations, found.spent, found.left) == (13, 22, 2)


def test_a_search_that_is_idle_is_expected_to_lose_its_patience():
    run = {"costs": [1.0] * 100}
    record = {"sweep": 0, "line": 10, "idle": 10, "evaluations": 31, "loss": 0.5, "sweep_loss": 0.5}
    found = forecast(state(run, {**record, "last_gain": None}), SearchOptions(patience=32), run["costs"])
    assert (found.evaluations, found.left) == (97, 66)
