"""Errors of the weights store."""

from __future__ import annotations

from duologue.errors import DuologueError


class WeightsError(DuologueError):
    """Weights can't be fetched, or are not those of the registry; the text says what to do."""


class WrongHashError(WeightsError):
    """A fetched file is not the one that the registry names; nothing of it is kept."""
