"""What can go wrong with weights."""

from __future__ import annotations

from duologue.errors import DuologueError


class WeightsError(DuologueError):
    """Weights can't be had, or are not what the registry says; the text says what to do."""


class WrongHashError(WeightsError):
    """A file that was fetched is not the one that the registry names; nothing of it is kept."""
