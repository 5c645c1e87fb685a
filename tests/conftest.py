import pytest


@pytest.fixture(autouse=True)
def quick_latency(monkeypatch):
    """Runs do not spend a second on the latency that they report."""
    monkeypatch.setattr("onnx_lapq.runtime.latency.SECONDS", 0.0)
