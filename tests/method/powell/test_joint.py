import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_lapq.errors import ConfigError, RunError
from onnx_lapq.method.powell import joint, judge, search_state
from onnx_lapq.method.powell.scipy_powell import minimise_scipy
from onnx_lapq.method.powell.search_state import SearchOptions

CONSTANTS = {
    "max_sweeps": (joint, 30),
    "enough_evaluations": (joint, 100_000),
    "tolerance": (search_state, 1e-6),
    "trust": (judge, judge.TRUST),
}


def minimise(loss, start, guard=None, *, negligible=0.0, max_evaluations=None, **others):
    """Search until nothing is left to gain, unless constants of the search are given."""
    patience = others.pop("patience", SearchOptions.patience)
    options = SearchOptions(negligible, max_evaluations, patience)
    with pytest.MonkeyPatch.context() as patch:
        for name, (module, value) in CONSTANTS.items():
            patch.setattr(module, name.upper(), others.pop(name, value))
        return joint.minimise(loss, start, options, guard, **others)


class Bowl:
    """A coupled quadratic in log coordinates around a known minimum, with a guard of its own minimum."""

    def __init__(self, n, coupling=0.3, seed=0, rounding=0.0, floor=0.05):
        rng = np.random.default_rng(seed)
        root = np.eye(n) + coupling * rng.normal(size=(n, n))
        self.hessian = root @ root.T / n
        self.minimum = rng.uniform(-0.4, 0.4, n)
        self.guard_minimum = 0.7 * self.minimum
        self.start = np.exp(rng.normal(size=n))
        self.rounding, self.floor = rounding, floor
        self.seen = []

    def __call__(self, step_sizes):
        assert (np.isfinite(step_sizes) & (step_sizes > 0)).all()
        self.seen.append(step_sizes.copy())
        return self._value(step_sizes, self.minimum)

    def guard(self):
        return np.array([self._value(self.seen[-1], self.guard_minimum)])

    def _value(self, step_sizes, minimum):
        away = np.log(step_sizes / self.start) - minimum
        value = self.floor + away @ self.hessian @ away
        return float(np.round(value / self.rounding) * self.rounding if self.rounding else value)


def outcome(result):
    return (
        result.step_sizes.tobytes(),
        result.loss,
        result.guard,
        result.evaluations,
        result.history,
        result.stopped,
    )


@pytest.mark.parametrize(("n", "coupling"), [(1, 0.0), (2, 0.9), (5, 0.3), (10, 0.2)])
def test_coupled_quadratic_is_minimised(n, coupling):
    bowl = Bowl(n, coupling)
    result = minimise(bowl, bowl.start)
    assert result.stopped == "converged"
    assert result.loss == pytest.approx(0.05, rel=1e-3)
    np.testing.assert_allclose(np.log(result.step_sizes / bowl.start), bowl.minimum, atol=0.05)


def test_no_sweep_begins_once_enough_evaluations_are_spent():
    bowl = Bowl(10)
    one = minimise(bowl, bowl.start, max_sweeps=1)
    two = minimise(bowl, bowl.start, max_sweeps=2)
    assert one.evaluations < two.evaluations
    for enough, same in ((1, one), (one.evaluations, one), (one.evaluations + 1, two)):
        found = minimise(bowl, bowl.start, enough_evaluations=enough)
        assert outcome(found) == outcome(same)


def test_a_search_ends_where_as_many_lines_as_its_patience_lower_nothing():
    minimum = np.array([0.3] * 2 + [0.0] * 4)  # a sweep begins with the last one

    def loss(step_sizes):
        return 1.0 + float(((np.log(step_sizes) - minimum) ** 2).sum())

    impatient = minimise(loss, np.ones(6), patience=4)
    assert (impatient.stopped, impatient.loss, impatient.state.line) == ("converged", loss(np.ones(6)), 4)
    patient = minimise(loss, np.ones(6), patience=5)
    assert patient.loss == pytest.approx(1.0, abs=1e-4)


def test_lines_that_lower_the_loss_by_next_to_nothing_count_as_idle():
    slope = np.array([0.1] * 2 + [0.005] * 4)

    def loss(step_sizes):
        return 1.0 + float(slope @ np.log(step_sizes))

    found = minimise(loss, np.ones(6), patience=4, tolerance=5e-3)
    assert (found.stopped, found.state.sweep, found.state.line) == ("converged", 0, 4)
    assert (found.step_sizes[2:] < 1).all()
    assert (found.step_sizes[:2] == 1).all()
    assert minimise(loss, np.ones(6), patience=4, max_sweeps=1).state.sweep == 1


def test_uncoupled_quadratic_takes_one_sweep_of_three_evaluations_a_line():
    bowl = Bowl(6, coupling=0.0)
    result = minimise(bowl, bowl.start, max_sweeps=1, tolerance=1e-3)
    assert result.loss == pytest.approx(0.05, abs=1e-3)
    assert result.evaluations <= 1 + 3 * 6 + 3


def test_coupling_brings_in_new_directions():
    bowl = Bowl(4, coupling=0.9)
    result = minimise(bowl, bowl.start)
    assert any(not isinstance(direction, int) for direction in result.state.directions)
    assert len(result.state.directions) == 4


def test_fewer_evaluations_than_scipy_for_the_same_loss():
    bowl = Bowl(20, coupling=0.1)
    scipy = minimise_scipy(bowl, bowl.start, max_iterations=2)
    ours = minimise(bowl, bowl.start, max_sweeps=2, tolerance=1e-3)
    assert ours.loss <= scipy.loss * 1.01
    assert ours.evaluations < scipy.evaluations / 2


def test_a_negligible_loss_is_left_as_it_is():
    bowl = Bowl(5)
    result = minimise(bowl, bowl.start, negligible=10.0)
    assert (result.stopped, result.evaluations) == ("negligible", 1)


def test_a_search_ends_once_its_loss_is_negligible():
    bowl = Bowl(5)
    result = minimise(bowl, bowl.start, negligible=bowl(bowl.start) - 0.01)
    assert result.stopped == "negligible"
    assert result.state.sweep == 0


def test_a_sweep_of_a_negligible_gain_is_the_last():
    bowl = Bowl(5)
    gain = bowl(bowl.start) - minimise(bowl, bowl.start, max_sweeps=1).loss
    bowl.floor = 100.0  # far above what is negligible
    result = minimise(bowl, bowl.start, tolerance=0.0, negligible=11 * gain)
    assert (result.stopped, result.state.sweep) == ("converged", 1)


def test_evaluations_and_history_tell_what_happened():
    bowl = Bowl(5)
    result = minimise(bowl, bowl.start)
    assert result.evaluations == len(bowl.seen)
    assert result.history[0].loss == bowl._value(bowl.start, bowl.minimum)
    assert result.history[-1].loss == result.loss
    losses = [entry.loss for entry in result.history]
    assert losses == sorted(losses, reverse=True)
    for entry in result.history:
        assert bowl._value(bowl.seen[entry.evaluations - 1], bowl.minimum) == entry.loss


def test_the_first_line_moves_the_last_step_size_and_leaves_the_others_to_the_bit():
    bowl = Bowl(3)
    minimise(bowl, bowl.start, max_sweeps=1, tolerance=1e-3, max_evaluations=3)
    assert bowl.seen[0].tobytes() == bowl.start.tobytes()
    assert all(seen[:-1].tobytes() == bowl.start[:-1].tobytes() for seen in bowl.seen)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 6),
    st.integers(0, 50),
    st.sampled_from([0.0, 0.003, 0.05, 10.0]),
    st.integers(1, 60),
    st.floats(1.01, 4),
    st.booleans(),
)
def test_never_worse_than_the_start_and_within_all_limits(n, seed, rounding, cap, trust, guarded):
    bowl = Bowl(n, 0.5, seed, rounding)
    guard = bowl.guard if guarded else None
    result = minimise(bowl, bowl.start, guard, max_sweeps=4, tolerance=1e-3, trust=trust, max_evaluations=cap)
    assert result.evaluations == len(bowl.seen) <= cap
    assert result.loss <= result.history[0].loss
    assert bowl._value(result.step_sizes, bowl.minimum) == result.loss
    factors = np.array(bowl.seen) / bowl.start
    assert factors.max() <= trust * (1 + 1e-12)
    assert factors.min() >= (1 - 1e-12) / trust
    if guarded:
        assert result.guard <= result.history[0].guard


def test_stepped_loss_is_lowered():
    bowl = Bowl(4, 0.2, rounding=0.004)
    result = minimise(bowl, bowl.start)
    assert result.loss < 0.25 * (result.history[0].loss - 0.05) + 0.05


def test_plateau_ends_the_search_where_it_began():
    start = np.array([1.0, 2.0])
    result = minimise(lambda _: 1.0, start)
    assert result.step_sizes.tobytes() == start.tobytes()
    assert (result.stopped, result.state.sweep) == ("converged", 1)


def test_cap_is_met_exactly():
    bowl = Bowl(5)
    for cap in range(1, 30):
        result = minimise(bowl, bowl.start, max_evaluations=cap)
        assert (result.evaluations, result.stopped) == (cap, "max-evaluations")


def test_stop_is_heeded_before_the_next_evaluation():
    bowl = Bowl(5)
    result = minimise(bowl, bowl.start, should_stop=lambda: len(bowl.seen) >= 7)
    assert (result.evaluations, result.stopped) == (7, "stopped")
    assert result.loss == min(bowl._value(seen, bowl.minimum) for seen in bowl.seen)


def test_guard_forbids_what_does_not_hold():
    bowl = Bowl(6, 0.1)
    bowl.guard_minimum = -bowl.minimum
    result = minimise(bowl, bowl.start, bowl.guard)
    assert result.guard <= result.history[0].guard
    assert result.loss > 0.06


def test_guard_that_agrees_changes_nothing():
    bowl = Bowl(6)
    bowl.guard_minimum = bowl.minimum
    assert minimise(bowl, bowl.start, bowl.guard).loss == minimise(bowl, bowl.start).loss


def test_guard_is_the_one_of_the_returned_point():
    bowl = Bowl(6)
    result = minimise(bowl, bowl.start, bowl.guard)
    bowl(result.step_sizes)
    assert bowl.guard() == result.guard


@pytest.mark.parametrize(("rise", "taken"), [(0.9, True), (1.1, False)])
def test_guard_forbids_a_rise_that_chance_does_not_explain(rise, taken):
    differences = np.array([1.0, -1.0] * 8)
    error = differences.std(ddof=1) / 4
    at_start = np.arange(16.0)

    def guard():
        return at_start if bowl.seen[-1][0] == 1 else at_start + differences + rise * error

    bowl = Bowl(1)
    bowl.start = np.ones(1)
    result = minimise(bowl, bowl.start, guard, max_sweeps=1, tolerance=1e-3)
    assert (len(result.history) > 1) == taken
    assert result.guard == at_start.mean()


def test_small_rises_of_the_guard_do_not_add_up():
    bowl = Bowl(6)
    differences = np.array([1.0, -1.0] * 8)
    error = differences.std(ddof=1) / 4

    def guard():
        before = len(bowl.seen) - 1
        return 9 + (differences + 0.3 * error * before if before else np.zeros(16))

    result = minimise(bowl, bowl.start, guard)
    assert 9 < max(accepted.guard for accepted in result.history) <= 9 + error


def test_a_point_whose_guard_loss_rose_is_not_kept():
    bowl = Bowl(6)
    random = np.random.default_rng(0)
    noise = [random.normal(size=16) for _ in range(1000)]
    result = minimise(bowl, bowl.start, lambda: 9 + noise[len(bowl.seen)])
    assert result.guard <= result.history[0].guard
    assert max(accepted.guard for accepted in result.history) > result.history[0].guard


@pytest.mark.parametrize("guarded", [False, True])
def test_resuming_at_any_line_ends_at_the_same_bytes(guarded):
    bowl = Bowl(5, coupling=0.6)
    guard = bowl.guard if guarded else None
    states = []
    whole = minimise(bowl, bowl.start, guard, on_line_search=states.append)
    assert len(states) > 10
    for state in states:
        assert outcome(minimise(bowl, bowl.start, guard, state=state)) == outcome(whole)


def test_run_cut_by_a_cap_goes_on_as_if_it_had_not_been():
    bowl = Bowl(4, coupling=0.6)
    whole = minimise(bowl, bowl.start)
    for cap in range(1, whole.evaluations):
        part = minimise(bowl, bowl.start, max_evaluations=cap)
        assert outcome(minimise(bowl, bowl.start, state=part.state)) == outcome(whole)


def test_resuming_a_finished_search_evaluates_nothing():
    bowl = Bowl(4)
    whole = minimise(bowl, bowl.start)
    count = len(bowl.seen)
    assert outcome(minimise(bowl, bowl.start, state=whole.state)) == outcome(whole)
    assert len(bowl.seen) == count


def test_exception_passes_through_and_the_last_state_resumes():
    bowl = Bowl(4)
    whole = minimise(bowl, bowl.start)
    bowl.seen.clear()
    states = []

    with pytest.raises(MemoryError):
        minimise(failing(bowl, 12, MemoryError), bowl.start, on_line_search=states.append)
    assert outcome(minimise(bowl, bowl.start, state=states[-1])) == outcome(whole)


def failing(bowl, evaluations, error):
    """A loss that raises after some evaluations."""

    def loss(step_sizes):
        if len(bowl.seen) == evaluations:
            raise error
        return bowl(step_sizes)

    return loss


@pytest.mark.parametrize("optimise", [minimise, minimise_scipy])
@pytest.mark.parametrize("evaluations", [0, 12])
def test_an_interrupt_passes_through(optimise, evaluations):
    bowl = Bowl(4)
    with pytest.raises(KeyboardInterrupt):
        optimise(failing(bowl, evaluations, KeyboardInterrupt), bowl.start)


def test_state_of_another_search_is_refused():
    bowl = Bowl(3)
    state = minimise(bowl, bowl.start).state
    with pytest.raises(RunError, match="other step sizes"):
        minimise(bowl, bowl.start * 2, state=state)
    with pytest.raises(RunError, match="guard"):
        minimise(bowl, bowl.start, bowl.guard, state=state)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_losses_that_are_not_finite_never_win(value):
    bowl = Bowl(3)
    result = minimise(lambda x: value if x[0] > bowl.start[0] else bowl(x), bowl.start)
    assert math.isfinite(result.loss)
    assert minimise(lambda _: value, bowl.start).step_sizes.tobytes() == bowl.start.tobytes()


def test_start_without_finite_loss_may_be_left():
    bowl = Bowl(3)
    result = minimise(lambda x: math.nan if (x == bowl.start).all() else bowl(x), bowl.start)
    assert math.isfinite(result.loss)


def test_nothing_to_search_is_one_evaluation():
    result = minimise(lambda _: 1.0, np.array([]))
    assert (result.evaluations, result.stopped) == (1, "converged")


@pytest.mark.parametrize("start", [[1.0, 0.0], [-1.0], [math.nan], [math.inf]])
def test_start_that_makes_no_sense_is_refused(start):
    for search in (
        lambda: minimise(sum, np.array(start)),
        lambda: minimise_scipy(sum, np.array(start)),
    ):
        with pytest.raises(RunError):
            search()


@pytest.mark.parametrize(
    "options",
    [
        {"negligible": -1.0},
        {"negligible": math.nan},
        {"max_evaluations": 0},
    ],
)
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(ConfigError):
        SearchOptions(**options)
