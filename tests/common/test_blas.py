from concurrent.futures import ThreadPoolExecutor

import numpy as np  # noqa: F401 - loads a BLAS
from threadpoolctl import threadpool_info, threadpool_limits

from onnx_lapq.common.blas import one_blas_thread


def threads() -> set[int]:
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


def within() -> set[int]:
    with one_blas_thread():
        return threads()


def test_blas_runs_on_one_thread_where_the_main_thread_asks_for_it():
    with threadpool_limits(2, user_api="blas"):
        assert within() == {1}
        assert threads() == {2}
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(within).result() == {2}
        assert threads() == {2}
