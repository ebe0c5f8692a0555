"""The codec of OpenAI's protocol with Qwen's dialect."""

from __future__ import annotations

from duologue._optional import optional
from duologue.providers._openai_protocol.append_only_history import AppendOnlyHistory
from duologue.providers.qwen._errors import kind_of, meaning_of
from duologue.providers.qwen._models import INPUT_RATE, LIFETIME_S
from duologue.providers.qwen._requests import QwenRequests
from duologue.providers.qwen._session_json import QwenSession

# Before the codec asks for the same, in the name of OpenAI's extra.
with optional("qwen"):
    from duologue.providers._openai_protocol.codec import Codec, Message
    from duologue.providers._openai_protocol.dialect import Dialect
    from duologue.providers._openai_protocol.websocket import EventSocket


__all__ = ["Codec", "EventSocket", "Message", "qwen_codec"]


def qwen_codec(session: QwenSession) -> Codec:
    """Return the codec of one connection.

    The service does not name the request that a response answers or an error refuses, and a
    cancelled response may get no ``response.done``.
    """
    history = AppendOnlyHistory(takes_text=session.config.traits.text_items)
    dialect = Dialect(
        session,
        requests=QwenRequests(history, session.config.modalities),
        input_rate=INPUT_RATE,
        output_rate=session.config.output_rate,
        lifetime_s=LIFETIME_S,
        closing_events=("session.finish",),
        kind_of=kind_of,
        meaning_of=meaning_of,
        correlates_errors=False,
        confirms_cancel=False,
        auto_interrupts=True,
        audio_event_ids=True,
        images_need_audio=True,
    )
    return Codec(dialect, history=history)
