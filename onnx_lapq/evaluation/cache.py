"""What the evaluator remembers of the network's insides, within a budget of bytes.

On a walk through the network, only values that are still needed are kept, and all of those: beyond the budget
in a temporary file. Otherwise:

A value is remembered once its key shows up in two evaluations in a row: trial points come and go, the point
the search stands on stays. Only the smallest values that fit the budget together are ever remembered, and
what a new one replaces goes first, so the budget holds at every moment.
"""

from collections.abc import Mapping, Set

import numpy as np

from onnx_lapq.common.scratch import Scratch, Shelf

__all__ = ["Cache"]


class Cache:
    """Values at the cuts for one key each, within a memory budget."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._scratch = Scratch(budget // 2)
        self._entries: dict[str, tuple[bytes, Shelf | list[np.ndarray]]] = {}
        self._previous: dict[str, bytes] = {}
        self.sizes: dict[str, int] = {}

    def known(self, keys: Mapping[str, bytes]) -> set[str]:
        """The values that are remembered for their keys."""
        return {name for name, (key, _) in self._entries.items() if keys.get(name) == key}

    def get(self, name: str, batch: int) -> np.ndarray:
        """A value that is remembered, on one batch."""
        return self._entries[name][1][batch]

    def learn(self, sizes: Mapping[str, int]) -> None:
        """Bytes that new values would take; what is remembered and does not fit beside them is dropped."""
        self.sizes.update(sizes)
        for name in self._entries.keys() - self.affordable():
            del self._entries[name]

    def make_room(self, names: Set[str], keys: Mapping[str, bytes]) -> set[str]:
        """Which of the values to remember; what was remembered in their place is dropped."""
        wanted = self.affordable().intersection(names)
        store = {name for name in wanted if self._previous.get(name) == keys[name]}
        for name in store:
            self._entries.pop(name, None)
        return store

    def keep_only(self, names: Set[str]) -> None:
        """Drop all but these values."""
        for name in self._entries.keys() - names:
            _, parts = self._entries.pop(name)
            if isinstance(parts, Shelf):
                parts.clear()

    def shelf(self) -> Shelf:
        """Where a value of a walk is put aside."""
        return self._scratch.shelf()

    def put(self, name: str, key: bytes, parts: Shelf | list[np.ndarray]) -> None:
        """Remember a value, on all batches."""
        _, before = self._entries.get(name, (key, None))
        if isinstance(before, Shelf):
            before.clear()
        self._entries[name] = (key, parts)

    def seen(self, keys: Mapping[str, bytes]) -> None:
        """The keys of an evaluation that has ended."""
        self._previous = dict(keys)

    def affordable(self) -> set[str]:
        """The smallest values that fit the budget together."""
        names = sorted(self.sizes, key=lambda name: (self.sizes[name], name))
        total = np.cumsum([self.sizes[name] for name in names])
        return set(names[: int(np.searchsorted(total, self._budget, side="right"))])
