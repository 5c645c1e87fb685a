"""The tool that measures the search counts what the search does."""

import re

import pytest
from bench_search import Metered, main, measured
from click.testing import CliRunner
from networks import quantized
from small_models import feeds, residual


@pytest.fixture(scope="module")
def said():
    options = ["--samples", "24", "--max-evals", "7", "--rounding", "nearest", "--mean", "0.286"]
    result = CliRunner().invoke(main, options, catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def cells(said: str, name: str) -> list[str]:
    (row,) = [line for line in said.splitlines() if re.match(rf"│ {name} +│", line)]
    return [cell.strip() for cell in row.strip("│").split("│")]


def test_every_optimizer_spends_what_it_may_from_the_same_start(said):
    for name in ("powell", "powell without guard", "scipy-powell"):
        _, evaluations, seconds, loss, guard, until = cells(said, name)
        assert evaluations == "7 (max-evaluations)"
        assert float(seconds) >= 0
        assert float(loss) > 0
        assert float(guard) > 0
        assert until == "never" or int(until) <= 7


def test_one_evaluation_has_a_price(said):
    assert all(float(cells(said, name)[2]) > 0 for name in ("full", "incremental.*"))


def test_a_meter_counts_evaluations_and_their_time():
    model = residual()
    network = quantized(model, feeds(model, 8), weight_bits=4, activation_bits=4)
    meter = Metered(network.evaluator())
    with measured() as whole:
        losses = [meter.losses(network.point()) for _ in range(3)]
    assert (losses[0] == losses[2]).all()
    assert meter.evaluations == 3
    assert 0 < meter.total.clock <= whole.clock
