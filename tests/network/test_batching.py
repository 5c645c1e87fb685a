import pytest

from onnx_lapq.network.batching import MAX_BATCH, BatchSizes, batch_sizes

MB = 1 << 20


@pytest.mark.parametrize(
    ("observed", "found"),
    [
        (0, BatchSizes(MAX_BATCH, MAX_BATCH)),
        (4 * MB, BatchSizes(16, 16)),
        (32 * MB, BatchSizes(2, 4)),
        (128 * MB, BatchSizes(1, 2)),
        (1024 * MB, BatchSizes(1, 1)),
    ],
)
def test_runs_that_give_all_activations_hold_fewer_samples(observed, found):
    assert batch_sizes(MAX_BATCH, observed) == found


def test_no_run_holds_more_samples_than_the_graph_takes():
    assert batch_sizes(1, 0) == BatchSizes(1, 1)
