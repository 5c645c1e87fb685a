"""The clock of a run: seconds by phase, and what an observer hears."""

import pytest

from onnx_lapq.progress import Clock, Progress, silent


@pytest.fixture
def at(monkeypatch):
    """The time that the clock reads; append to it to let time pass."""
    times = [0.0]
    monkeypatch.setattr("onnx_lapq.progress.time.perf_counter", lambda: times[-1])
    return times


def test_the_seconds_of_a_phase_that_runs_twice_add_up(at):
    clock = Clock(silent)
    for phase, end in (("calibrate", 2.0), ("bits", 7.0), ("calibrate", 10.0)):
        with clock.phase(phase):
            at.append(end)
    assert clock.seconds == {"calibrate": 5.0, "bits": 5.0}


def test_a_phase_is_told_at_its_start_and_at_every_tick():
    heard = []
    with Clock(heard.append).phase("joint", 8) as tick:
        tick(3, 0.5)
    assert heard == [Progress("joint", 0, 8), Progress("joint", 3, 8, 0.5)]
