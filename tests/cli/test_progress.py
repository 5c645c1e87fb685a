"""Progress on a terminal and on a pipe, where a run is one of several."""

import io
import json

import pytest
from rich.console import Console

from onnx_lapq.cli.progress import _Bars, _bars, show_progress
from onnx_lapq.progress import Progress

TRIALS = [
    Progress("calibrate", 2, 4),
    Progress("rounding", 1, 1),
    Progress("promote", 0, None, said="trial 1, quick run, 0 steps: all limits hold"),
    Progress("calibrate", 1, 4),
]


def test_a_bar_of_a_phase_that_comes_again_begins_again():
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with _bars(console) as bars:
        observer = _Bars(bars)
        for progress in TRIALS[:-1]:
            observer(progress)
        assert [(task.completed, task.total) for task in bars.tasks] == [(2, 2), (1, 1)]
        observer(TRIALS[-1])
        assert [(task.completed, task.total) for task in bars.tasks] == [(1, 4), (1, 1)]
    assert "promote: trial 1, quick run, 0 steps: all limits hold" in console.file.getvalue()


@pytest.mark.parametrize("form", ["text", "json"])
def test_lines_tell_what_a_trial_came_to_between_its_phases(capsys, form):
    with show_progress(quiet=False, form=form) as observer:
        for progress in TRIALS:
            observer(progress)
    lines = capsys.readouterr().err.splitlines()
    found = [json.loads(line)["message"] for line in lines] if form == "json" else lines
    assert [line.split(":")[0] for line in found] == ["calibrate", "rounding", "promote", "calibrate"]
    assert found[2] == "promote: trial 1, quick run, 0 steps: all limits hold"
