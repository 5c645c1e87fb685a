import json

import numpy as np
import onnx_ir as ir
import pytest
from commands import run
from image_folders import write_job
from networks import Arrays
from releases import needs
from small_models import feeds, residual

from onnx_lapq.config import QuantizationConfig
from onnx_lapq.errors import ConfigError
from onnx_lapq.graph.simplify.prepare import prepare
from onnx_lapq.progress import Clock, silent
from onnx_lapq.study.calibration_size import hold_out
from onnx_lapq.study.extent import Extent
from onnx_lapq.study.landscape_view import look

FIGURES = {"surface", "quadratic", "errors", "hessian", "coupling"}
SMALL = ["--hessian", "3", "--grid", "3", "--samples", "8", "-q"]


@pytest.fixture
def job(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return write_job(tmp_path, classes=10, per_class=2)


def view(extent: Extent, **options):
    prepared = prepare(ir.from_proto(residual()))
    config = QuantizationConfig(p_values=(2.0, 3.0, 4.0), weight_bits=4, activation_bits=4, **options)
    return look(prepared, Arrays(feeds(residual(), 6)), config, extent, Clock(silent))


def test_a_view_is_centred_at_the_quadratic_fit():
    found = view(Extent(hessian=3, grid=3))
    assert found.bends.centre == pytest.approx(found.fit.loss)
    assert found.surface[1, 1] == found.bends.centre
    assert found.surface.shape == (3, 3)


def test_the_evaluations_are_those_that_the_docs_promise():
    found = view(Extent(hessian=3, grid=3))
    fit = 1 + len(found.fit.samples) + (found.fit.p_star_loss is not None)
    assert found.evaluations == fit + 1 + 2 * len(found.quantizers) + (4 * 3 * 2 + 18 * 3) + 3 * 3


def test_the_hessian_is_symmetric_and_holds_the_largest_curvatures():
    found = view(Extent(hessian=3, grid=3))
    np.testing.assert_array_equal(found.hessian.values, found.hessian.values.T)
    sizes = np.abs(found.bends.curvature)
    assert sizes[found.chosen].min() >= np.delete(sizes, found.chosen).max()


def test_a_named_pair_is_taken():
    names = view(Extent(hessian=2, grid=3)).quantizers
    found = view(Extent(pair=(names[-1], names[0]), hessian=2, grid=3))
    assert found.pair_names == (names[-1], names[0])


@pytest.mark.parametrize(
    ("extent", "words"),
    [
        ({"pair": ("nobody", "c0")}, "no searched quantizer 'nobody'; there are: "),
        ({"pair": ("c0", "c0")}, "over 'c0' twice"),
    ],
)
def test_a_pair_that_makes_no_sense_is_refused(extent, words):
    with pytest.raises(ConfigError, match=words):
        view(Extent(**extent))


@pytest.mark.parametrize(
    "options", [{"hessian": 1}, {"grid": 2}, {"span": 1.0}, {"distance": 0}, {"distance": 0.8}]
)
def test_an_extent_that_makes_no_sense_is_refused(options):
    with pytest.raises(ConfigError):
        Extent(**options)


def test_the_command_writes_figures_and_numbers(job):
    done = run("landscape", "model.onnx", "calib", "-o", "out", "--pairs", "8/8,2/2", *SMALL)
    assert done.exit_code == 0, done.output
    assert {path.name for path in (job / "out").iterdir()} == {
        "landscape.json", "landscape.npz", *(f"{name}.png" for name in FIGURES)
    }  # fmt: skip
    written = json.loads((job / "out" / "landscape.json").read_text())
    assert [view["weight_bits"] for view in written["views"]] == [8, 2]
    wide, narrow = written["views"]
    assert len({tuple(np.array(view["quantizers"])[view["chosen"]]) for view in (wide, narrow)}) == 1
    assert wide["pair"] == narrow["pair"]
    assert wide["coupling"]["norm"] < narrow["coupling"]["norm"]
    assert wide["curvature"]["log10"] < narrow["curvature"]["log10"]
    with np.load(job / "out" / "landscape.npz") as arrays:
        np.testing.assert_array_equal(arrays["w2a2.hessian"], narrow["hessian"]["values"])
        np.testing.assert_array_equal(arrays["w2a2.hessian_errors"], narrow["hessian"]["errors"])
    assert written["views"][1]["bends"]["centre"] > written["views"][0]["bends"]["centre"]


@needs("onnxruntime", "1.24", "Min of integers")
def test_even_channels_bend_the_loss_in_another_way(job):
    centres = []
    for option in ("--equalize", "--no-equalize"):
        done = run("landscape", "model.onnx", "calib", "-o", "out", "-w", "4", "--per-tensor", option, *SMALL)
        assert done.exit_code == 0, done.output
        written = json.loads((job / "out" / "landscape.json").read_text())
        centres.append(written["views"][0]["bends"]["centre"])
    assert centres[0] != centres[1]


def test_a_landscape_of_bits_that_are_to_be_chosen_is_refused(job):
    done = run("landscape", "model.onnx", "calib", "--bits", "auto")
    assert done.exit_code == 2
    assert "a landscape is that of given bits" in done.stderr


def test_the_same_run_gives_the_same_files(job):
    for folder in ("one", "two"):
        done = run("landscape", "model.onnx", "calib", "-o", folder, "-w", "4", "--format", "svg", *SMALL)
        assert done.exit_code == 0, done.output
    for path in (job / "one").iterdir():
        assert path.read_bytes() == (job / "two" / path.name).read_bytes(), path.name


def test_sizes_are_judged_on_samples_that_had_no_part(job):
    done = run("landscape", "model.onnx", "calib", "-o", "out", "--sizes", "4,8", "--max-evals", "3",
               *(word for word in SMALL if word not in ("--samples", "8")))  # fmt: skip
    assert done.exit_code == 0, done.output
    points = json.loads((job / "out" / "landscape.json").read_text())["sizes"]
    assert [point["samples"] for point in points] == [4, 8]
    assert all(point["loss"] > 0 and 0 <= point["accuracy"] <= 1 for point in points)
    assert (job / "out" / "sizes.png").stat().st_size > 1000


def test_held_out_samples_are_no_others():
    samples = Arrays({"x": np.arange(11, dtype=np.float32)})
    pool, held = hold_out(samples)
    parts = [part.batch(0, len(part))["x"].tolist() for part in (pool, held)]
    assert parts[1] == [2, 7]
    assert sorted(parts[0] + parts[1]) == list(range(11))


def test_more_samples_than_there_are_is_refused(job):
    done = run("landscape", "model.onnx", "calib", "-o", "out", "--sizes", "99", *SMALL)
    assert done.exit_code == 2
    assert "sizes are [99], but 6 samples are there to choose from" in done.stderr
    assert not (job / "out").exists()


def test_without_matplotlib_one_sentence_says_what_to_install(job, monkeypatch):
    monkeypatch.setattr("onnx_lapq.common.extras.find_spec", lambda name: None)
    done = run("landscape", "model.onnx", "calib")
    assert done.exit_code == 2
    assert 'matplotlib: not installed; run pip install ".[report]"' in done.stderr
