import pytest

from onnx_lapq.network.batching import MAX_BATCH, BatchSizes, batch_limit, batch_sizes
from onnx_lapq.runtime.session import open_session
from tests.support.networks import Arrays
from tests.support.small_models import feeds, residual

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


@pytest.mark.parametrize(("count", "most"), [(3, 3), (64, 64), (65, 33), (100, 50), (130, 44)])
def test_the_fewest_runs_hold_equally_many_samples(count, most):
    model = residual()
    assert batch_limit(open_session(model), Arrays(feeds(model, count))) == most
