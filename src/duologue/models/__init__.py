"""The model store: weights by name, fetched once, checked by hash, kept in a cache."""

from __future__ import annotations

from duologue.models.errors import WeightsError
from duologue.models.registry import Source, Weight, load_registry
from duologue.models.store import CachedWeight, Store

__all__ = ["CachedWeight", "Source", "Store", "Weight", "WeightsError", "load_registry"]
