"""Results that are kept while there is room."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any


class BoundedCache(OrderedDict):
    """Key to result, the least recently used first.

    >>> cache = BoundedCache()
    >>> [cache.fetch(key, lambda: key.upper(), size=2) for key in 'abca']
    ['A', 'B', 'C', 'A']
    >>> list(cache)
    ['c', 'a']
    """

    def fetch(self, key: Hashable, make: Callable[[], Any], size: int) -> Any:
        """What ``make`` returned for this key; ``size`` results are kept."""
        value = self[key] if key in self else make()
        self[key] = value
        self.move_to_end(key)
        while len(self) > size:
            self.popitem(last=False)
        return value
