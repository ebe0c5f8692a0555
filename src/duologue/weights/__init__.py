"""Weights of models by name: fetched once, checked by hash, and kept in a cache."""

from __future__ import annotations

from duologue.weights._errors import WeightsError
from duologue.weights._registry import Source, Weight, load_registry
from duologue.weights._store import CachedWeight, Store

__all__ = ["CachedWeight", "Source", "Store", "Weight", "WeightsError", "load_registry"]
