"""How many threads the linear algebra behind numpy runs on."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import threadpool_limits

__all__ = ["one_blas_thread"]


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Run BLAS on one thread, in the whole process, where the main thread asks for it.

    Sums of several of its threads round differently, and our own workers keep the cores busy: they would wait
    for each other. It holds for libraries that are loaded. Other threads change nothing: OpenBLAS takes a
    limit back only from the thread that set it, and of two that overlap the last one would have to.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with threadpool_limits(1, user_api="blas"):
        yield
