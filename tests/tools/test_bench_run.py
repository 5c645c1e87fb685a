"""The tool that measures runs counts all of a run, and its page shows its log."""

import pytest
from bench_log import LOG, Cost, Measured, read
from bench_page import PAGE, cost_page
from bench_run import main
from click.testing import CliRunner
from image_folders import write_job


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A run that was measured, and what was printed of it."""
    job = write_job(tmp_path_factory.mktemp("job"), classes=4, per_class=2)
    options = ["-w", "4", "--rounding", "nearest", "--optimizer", "none", "--p-grid", "2,3,4"]
    paths = [str(job / name) for name in ("model.onnx", "calib")]
    result = CliRunner().invoke(main, [*paths, *options, "--log", str(job / "log")], catch_exceptions=False)
    assert result.exit_code == 0
    (run,) = read(job / "log")
    return run, result.output


def test_phases_add_up(measured):
    run, said = measured
    assert {"prepare", "calibrate", "quadratic", "bias", "all else"} <= run.phases.keys()
    assert run.float_pass > 0
    assert sum(run.phases.values()) == pytest.approx(run.passes, rel=0.01)
    assert all(phase in said for phase in run.phases)


def test_a_run_is_known_by_its_options_and_its_samples(measured):
    run, _ = measured
    assert run.model.endswith("/model.onnx")
    assert run.samples == 8
    assert run.options == "W4A8, p_values=(2.0, 3.0, 4.0), optimizer=none, rounding=nearest"


def test_each_tool_has_a_peak_of_its_own(measured):
    run, _ = measured
    assert run.ratio == pytest.approx(run.ours.seconds / run.static.seconds)
    assert 50 < run.static.peak_mib < 1000
    assert 50 < run.ours.peak_mib < 1000


def test_the_page_is_what_its_generator_writes():
    assert PAGE.read_text() == cost_page(read(LOG)), "run: python tools/bench/bench_page.py"


def test_a_model_is_a_table_with_a_row_for_each_run():
    one = Measured("2026-01-02", "abc", "cpu", 0.1, "a.onnx", "W8A8", 8, 0.5, {"x": 1.0}, Cost(2.0, 90), None)
    page = cost_page([one, Measured(**{**vars(one), "static": Cost(1.0, 80), "date": "2026-01-03"})])
    assert page.count("## a.onnx") == 1
    assert "| 2026-01-02 | abc | 0.1 | W8A8 | 0.5 s | 4 | x 1 | 2.0 s | 90 MiB |" in page
    assert (
        "| 2026-01-03 | abc | 0.1 | W8A8 | 0.5 s | 4 | x 1 | 2.0 s, 1.0 s, ratio 2.0 | 90 MiB, 80 MiB |"
        in page
    )
