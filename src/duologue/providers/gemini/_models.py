"""How the models of Gemini Live differ, from Google's model pages (late 2026)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True, slots=True)
class Traits:
    """What one model supports.

    Attributes:
        free_context: It takes `clientContent` at any time. Otherwise only as the history at the
            beginning, and text is sent as `realtimeInput`.
        seeds: The history is announced by `historyConfig`.
        context_update: Instructions and tools can change in mid-session.
        async_tools: The model may continue without waiting for a tool: unless declared otherwise
            (``default``), for tools ``declared`` so, or never (``none``).
        proactivity: Whether the model may ignore input that is not meant for it.
        thinking: Which of the two options of `Thinking` it takes.
        affective_dialog: It can adapt its voice to the person's.
        status: The end of a turn tells whether another turn follows by itself.
        alpha: Proactivity and affective dialog need ``v1alpha`` of the Gemini API.
        session_s: Seconds after which a connection is closed although the context is compressed.
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
"""By the prefix of the model's name; the first match counts."""


def bare_name(model: str) -> str:
    """Return a model's own name, without ``models/`` or the path of Vertex AI."""
    return model.rpartition("/")[2]


def model_traits(model: str) -> Traits:
    """Return the traits of a model; an unknown name gets those of the newest model."""
    name = bare_name(model)
    return next((traits for prefix, traits in _TRAITS_BY_PREFIX if name.startswith(prefix)), _3_8)
