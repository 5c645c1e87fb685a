"""Execution providers: passed through, refused by name, and what they leave to the CPU.

AzureExecutionProvider is in every plain build for Linux and runs no node of an ordinary network, so that it
shows the way back to the CPU.
"""

import re

import numpy as np
import onnxruntime as ort
import pytest
from networks import quantized
from small_models import feeds, residual

from onnx_lapq.config import QuantizationConfig
from onnx_lapq.errors import ConfigError
from onnx_lapq.runtime.providers import CPU, find_provider, left_to_cpu
from onnx_lapq.runtime.session import open_session

AZURE = "AzureExecutionProvider"
counts_nodes = pytest.mark.skipif(
    not hasattr(ort.InferenceSession, "get_provider_graph_assignment_info"), reason="before onnxruntime 1.24"
)
with_azure = pytest.mark.skipif(AZURE not in ort.get_available_providers(), reason="not in this build")


@pytest.mark.parametrize("name", ["CPUExecutionProvider", "cpu", "CPU", "cpuexecutionprovider"])
def test_a_provider_goes_by_its_full_and_its_short_name(name):
    assert find_provider(name) == CPU


def test_a_provider_that_the_build_lacks_is_refused_and_those_it_has_are_named():
    with pytest.raises(ConfigError, match=re.escape(" and ".join(ort.get_available_providers()))) as caught:
        find_provider("Abacus")
    assert "provider 'Abacus' is not in the installed onnxruntime" in str(caught.value)


def test_the_cpu_leaves_nothing():
    assert left_to_cpu(open_session(residual())) is None


@with_azure
@counts_nodes
def test_what_a_provider_leaves_to_the_cpu_is_counted():
    session = open_session(residual(), provider=AZURE)
    assert session.get_providers() == [AZURE, CPU]
    assert re.fullmatch(
        rf"{CPU} runs the (\d+) of \1 nodes that {AZURE} does not", left_to_cpu(session) or ""
    )


@with_azure
def test_the_evaluator_runs_on_the_provider(monkeypatch):
    opened, session = [], ort.InferenceSession

    def spy(*arguments, **options):
        opened.append(session(*arguments, **options))
        return opened[-1]

    model = residual()
    network = quantized(model, feeds(model, 8))
    expected = network.evaluator().losses(network.point())
    monkeypatch.setattr(ort, "InferenceSession", spy)
    np.testing.assert_array_equal(network.evaluator(provider=AZURE).losses(network.point()), expected)
    assert {tuple(each.get_providers()) for each in opened} == {(AZURE, CPU)}


def test_the_provider_is_part_of_what_a_saved_state_belongs_to():
    assert QuantizationConfig(provider="cpu").resolved().deciding()["provider"] == CPU
