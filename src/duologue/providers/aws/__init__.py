"""Amazon Nova Sonic, on Bedrock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from duologue._lazy import lazy_names

if TYPE_CHECKING:
    from duologue.providers.aws._credentials import Credentials
    from duologue.providers.aws._realtime import ROLL_OVER, Realtime
    from duologue.realtime.options import SemanticVAD, ServerVAD, Transcription

__all__ = ["Realtime", "Credentials", "SemanticVAD", "ServerVAD", "Transcription", "ROLL_OVER"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "duologue.providers.aws._credentials": ["Credentials"],
            "duologue.providers.aws._realtime": ["ROLL_OVER", "Realtime"],
            "duologue.realtime.options": ["SemanticVAD", "ServerVAD", "Transcription"],
        },
    )
