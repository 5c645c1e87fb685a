"""Ray actors give the losses and the bytes of one process, on a real local cluster of two workers.

Run by ``make test-ray``.
"""

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from commands import run
from networks import quantized
from small_models import feeds, residual
from streaming import lines, reader

from onnx_lapq import ConfigError, QuantizationConfig, quantize

ray = pytest.importorskip("ray")
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.xdist_group("ray")]

SAMPLES = feeds(residual(), 12)


@pytest.fixture(scope="module", autouse=True)
def cluster():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")
        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


def config(executor: str) -> QuantizationConfig:
    return QuantizationConfig(
        weight_bits=4,
        activation_bits=4,
        loss="mse",
        p_values=(2.0, 3.0, 4.0),
        max_evaluations=12,
        workers=2,
        executor=executor,
    )


def result(executor: str, **options):
    found = quantize(residual(), SAMPLES, config(executor), **options)
    losses = [(stage.stage, stage.loss, stage.guard_loss) for stage in found.report.stages]
    return losses, found.report.evaluations, found.model.SerializeToString(deterministic=True)


@pytest.fixture(scope="module")
def local():
    return result("local")


def process(part) -> int:
    """The process of the actor that has a part."""
    return ray.get(part.actor.__ray_call__.remote(lambda actor: os.getpid()))


def test_losses_and_bytes_are_those_of_one_process(local):
    assert result("ray") == local


def test_samples_of_different_lengths_give_the_bytes_of_one_process():
    model, pictures = reader(time_first=True), lines(16)
    one, other = (
        quantize(model, pictures, config(executor)).model.SerializeToString(deterministic=True)
        for executor in ("local", "ray")
    )
    assert one == other


def test_an_actor_that_is_killed_mid_run_is_replaced_and_nothing_is_lost(local, monkeypatch, caplog):
    from onnx_lapq.evaluation.ray_evaluator import RayEvaluator

    killed, losses = [], RayEvaluator.losses

    def kill_one(evaluator, point):
        if evaluator.evaluations == 8:
            killed.append(process(evaluator.parts[0]))
            os.kill(killed[0], signal.SIGKILL)
        if evaluator.evaluations == 10:
            assert process(evaluator.parts[0]) not in killed
        return losses(evaluator, point)

    monkeypatch.setattr(RayEvaluator, "losses", kill_one)
    assert result("ray") == local
    assert len(killed) == 1
    assert "a Ray actor has died; another one takes its samples" in caplog.text


def test_an_error_of_a_loss_function_arrives_as_it_was_raised():
    with pytest.raises(ConfigError, match="return one number per sample"):
        quantize(
            residual(),
            SAMPLES,
            QuantizationConfig(workers=2, executor="ray"),
            loss=lambda outputs, reference, labels: np.zeros(()),
        )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_an_interrupted_run_ends_in_order_and_goes_on_without_ray(number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    onnx.save(residual(), "model.onnx")
    np.savez("calib.npz", **SAMPLES)
    command = ["model.onnx", "calib.npz", "-w", "4", "-a", "4", "--loss", "mse", "--guard", "0"]
    on_ray = ["--executor", "ray", "--workers", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "onnx_lapq", *command, "-o", "out.onnx", *on_ray],
        env={**os.environ, "RAY_worker_niceness": "0"},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while process.poll() is None and not Path("out.onnx.state").exists():
        time.sleep(0.01)
    os.killpg(process.pid, number)
    assert "--resume goes on from out.onnx.state" in process.communicate()[1]
    assert process.returncode == 130
    assert run(*command, "-o", "out.onnx", "--resume").exit_code == 0
    assert run(*command, "-o", "straight.onnx").exit_code == 0
    assert Path("out.onnx").read_bytes() == Path("straight.onnx").read_bytes()


def test_what_travels_is_what_has_changed():
    from onnx_lapq.evaluation.ray_evaluator import changes

    network = quantized(residual(), SAMPLES)
    before = network.point()
    name = max(before.weights, key=lambda name: before.weights[name].codes.size)
    after = network.network.point({**network.steps, name: network.steps[name] * 1.1})
    found = changes(before, after)
    assert (dict(found.scales), list(found.weights)) == ({}, [name])
    assert found.of(before).weights[name].digest == after.weights[name].digest
    assert len(pickle.dumps(changes(before, before))) < 200
