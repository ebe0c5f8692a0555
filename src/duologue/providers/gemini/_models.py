"""How the models of Gemini Live differ: one row each, by Google's model pages (late 2026)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True, slots=True)
class Traits:
    """What one model takes.

    ``free_context``: `clientContent` at any time; otherwise only as the history at the beginning,
    and text goes as `realtimeInput`. ``seeds``: the history is given under `historyConfig`.
    ``context_update``: instructions and tools can be changed in mid-session. ``async_tools``:
    calls that are not waited for are the ``default``, can be ``declared``, or are not there.
    ``status``: the end of a turn says whether another one follows by itself. ``alpha``: proactivity
    and affective dialog are in the version ``v1alpha`` of the Gemini API only. ``session_s``: what
    a connection is cut at although the context is compressed, in seconds.
    """

    free_context: bool = True
    seeds: bool = True
    context_update: bool = True
    async_tools: Literal["default", "declared", "none"] = "default"
    proactivity: Literal["always", "optional", "none"] = "always"
    thinking: Literal["level", "budget", "none"] = "none"
    affective_dialog: bool = False
    status: bool = False
    alpha: bool = False
    session_s: float | None = None


_3_8 = Traits(status=True, session_s=58 * 60.0)
_3_1 = Traits(
    free_context=False,
    context_update=False,
    async_tools="none",
    proactivity="none",
    thinking="level",
)
_2_5 = Traits(
    seeds=False,
    context_update=False,
    async_tools="declared",
    proactivity="optional",
    thinking="budget",
    affective_dialog=True,
    alpha=True,
)

_TRAITS_BY_PREFIX: tuple[tuple[str, Traits], ...] = (
    ("gemini-3.8-live-extended-thinking", replace(_3_8, thinking="level")),
    ("gemini-3.8", _3_8),
    ("gemini-3.5", _3_1),
    ("gemini-3.1", _3_1),
    ("gemini-live-2.5", _2_5),
    ("gemini-2.5", _2_5),
    ("gemini-2.0", replace(_2_5, affective_dialog=False, proactivity="none", thinking="none")),
)
"""By the beginning of the name; the first that fits."""


def bare_name(model: str) -> str:
    """A model's own name, without ``models/`` or the path that Vertex AI has before it."""
    return model.rpartition("/")[2]


def model_traits(model: str) -> Traits:
    """The traits of a model; a name that is not known here gets the newest one's."""
    name = bare_name(model)
    return next((traits for prefix, traits in _TRAITS_BY_PREFIX if name.startswith(prefix)), _3_8)
