"""Weights of models by name: fetched once, checked by hash, and kept in a cache."""

from __future__ import annotations

from duologue.weights._errors import WeightsError
from duologue.weights._gguf import GgufError, GgufHeader, check_chat_model
from duologue.weights._model_files import ModelFile, ModelFiles, parse_source
from duologue.weights._registry import Source, Weight, load_registry
from duologue.weights._store import CachedWeight, Store

__all__ = [
    "CachedWeight",
    "GgufError",
    "GgufHeader",
    "ModelFile",
    "ModelFiles",
    "Source",
    "Store",
    "Weight",
    "WeightsError",
    "check_chat_model",
    "load_registry",
    "parse_source",
]
