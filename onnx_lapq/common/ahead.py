"""Work that threads do a little ahead of what takes its results."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["results_in_order"]

T = TypeVar("T")
S = TypeVar("S")


def results_in_order(
    pool: ThreadPoolExecutor, work: Callable[[S], T], items: Iterable[S], ahead: int
) -> Iterator[T]:
    """Results of work on items, in their order. None is begun once one has failed, or nothing more is taken.

    Args:
        pool: What does the work.
        work: Done for each item.
        items: In the order of the results.
        ahead: Most results that wait, or are being made, beside the one that is taken.

    Yields:
        The results.
    """
    pending: deque[Future[T]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(work, item))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()
