import pytest

from onnx_lapq.stages.found import Found, paced


@pytest.mark.parametrize(("seconds", "saved"), [(1, [0, 20, 40]), (0, list(range(60)))])
def test_saving_takes_a_twentieth_of_the_time_at_most(monkeypatch, seconds, saved):
    """Something is found every second; seconds that a save takes pass on the same clock."""
    now, done = [0.0], []

    def save(found: Found) -> None:
        done.append(found.evaluations)
        now[0] += seconds

    monkeypatch.setattr("onnx_lapq.stages.found.perf_counter", lambda: now[0])
    save_now_and_then = paced(save)
    for evaluations in range(60):
        save_now_and_then(Found(evaluations=evaluations))
        now[0] += 1
    assert done == saved
