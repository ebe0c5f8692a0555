"""A dict of bounded size, for what a far side may make grow without end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from typing import overload


class BoundedDict[K, V](MutableMapping[K, V]):
    """A mapping that drops its oldest entry when it holds more than ``max_size``.

    Setting a key that exists keeps its age.

    Args:
        max_size: The most entries.
        on_drop: Called with the key and the value of each entry that is dropped.
    """

    __slots__ = ("_entries", "_max_size", "_on_drop")

    def __init__(self, max_size: int, on_drop: Callable[[K, V], None] | None = None) -> None:
        self._entries: dict[K, V] = {}
        self._max_size = max_size
        self._on_drop = on_drop

    def __getitem__(self, key: K) -> V:
        return self._entries[key]

    @overload
    def get(self, key: K, /) -> V | None: ...

    @overload
    def get[D](self, key: K, /, default: V | D) -> V | D: ...

    def get(self, key: K, /, default: object = None) -> object:
        """Return the value of ``key``, or ``default``; that of `Mapping` raises to find out."""
        return self._entries.get(key, default)

    def __setitem__(self, key: K, value: V) -> None:
        self._entries[key] = value
        if len(self._entries) > self._max_size:
            oldest = next(iter(self._entries))
            dropped = self._entries.pop(oldest)
            if self._on_drop is not None:
                self._on_drop(oldest, dropped)

    def __delitem__(self, key: K) -> None:
        del self._entries[key]

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def __iter__(self) -> Iterator[K]:
        return iter(self._entries)

    def __reversed__(self) -> Iterator[K]:
        return reversed(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._entries!r})"

    def clear(self) -> None:
        """Drop all entries without calling ``on_drop``."""
        self._entries.clear()
