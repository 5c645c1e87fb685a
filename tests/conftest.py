import hypothesis
import pytest

hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")  # a busy machine is no fault


@pytest.fixture(autouse=True)
def quick_latency(monkeypatch):
    """Runs do not spend a second on the latency that they report."""
    monkeypatch.setattr("onnx_lapq.runtime.latency.SECONDS", 0.0)
