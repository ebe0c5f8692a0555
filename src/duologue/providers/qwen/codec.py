"""How Qwen speaks OpenAI's protocol: the codec of that protocol, told what differs."""

from __future__ import annotations

from duologue.extras import require
from duologue.providers.qwen.errors import kind_of, meaning_of
from duologue.providers.qwen.history import AppendedHistory
from duologue.providers.qwen.models import INPUT_RATE, LIFETIME_S
from duologue.providers.qwen.requests import QwenRequests
from duologue.providers.qwen.session_json import QwenSession

# Before the codec asks for the same, in the name of OpenAI's extra.
require("orjson", "qwen")
require("pybase64", "qwen")

from duologue.providers.openai.codec import Codec, Message  # noqa: E402
from duologue.providers.openai.dialect import Dialect  # noqa: E402
from duologue.providers.openai.event_socket import EventSocket  # noqa: E402

__all__ = ["EventSocket", "Message", "qwen_codec"]


def qwen_codec(session: QwenSession) -> Codec:
    """The codec of one connection.

    The service does not say which request a response answers or an error refuses, and a response
    that is cancelled may get no ``response.done``.
    """
    history = AppendedHistory(text=session.config.traits.text_items)
    dialect = Dialect(
        session,
        requests=QwenRequests(history),
        input_rate=INPUT_RATE,
        output_rate=session.config.output_rate,
        lifetime_s=LIFETIME_S,
        farewell=("session.finish",),
        kind_of=kind_of,
        meaning_of=meaning_of,
        tells_which=False,
        ends_cancelled=False,
        stops_at_speech=True,
        sound_ids=True,
        pictures_need_sound=True,
    )
    return Codec(dialect, history=history)
