"""Cartesia's recognisers: Ink-2, which finds turns in English, and others without turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Literal

from duologue.errors import ConfigError
from duologue.pipeline.interfaces import STTConnection
from duologue.pipeline.socket_stt import SocketSTT
from duologue.pipeline.stt_codec import RecognizerTraits, STTCodec
from duologue.providers._options import between, one_of, option, takes, text
from duologue.providers._speech_service import Query, SpeechOptions, SpeechService
from duologue.providers.cartesia._manual_stt_codec import CartesiaManualCodec
from duologue.providers.cartesia._service import CARTESIA
from duologue.providers.cartesia._stt_codec import CartesiaTurnsCodec

RATE = 16000
TRAITS = RecognizerTraits(ends_turns=False, silence_s=0.5, idle_silence_s=60.0)
MANUAL_TRAITS = RecognizerTraits(turns="local", silence_s=None, idle_silence_s=60.0)


@dataclass(frozen=True)
class CartesiaSTTOptions(SpeechOptions):
    """Options of Cartesia's recogniser."""

    model: str | None = option(
        None,
        "name of the model",
        check=text("the name of a model"),
        shown="`ink-2`; `ink-whisper` for other languages than English",
    )
    _: KW_ONLY
    language: str | None = option(
        None,
        "language of the speech, such as `de`; turns are found in English only",
        check=text("a language such as en"),
        shown="`en`",
    )
    turns: str | None = option(
        None,
        "`service` or `local`: who finds the turns",
        check=one_of("service", "local"),
        shown="`service` if model and language can",
    )
    keyterms: Sequence[str] = option((), "words that it should expect, where it finds the turns")
    turn_start_threshold: float = option(
        0.8, "0.5 to 0.9: how sure it must be that a turn has begun", check=between(0.5, 0.9)
    )
    turn_eager_end_threshold: float = option(
        0.4, "0.3 to 0.6: below this a turn may be over", check=between(0.3, 0.6)
    )
    turn_end_threshold: float = option(
        0.2, "0.05 to 0.5: below this a turn is over", check=between(0.05, 0.5)
    )
    turn_end_timeout_ms: int = option(
        5600,
        "640 to 11200: milliseconds of silence that end a turn",
        check=between(640, 11200, integer=True),
    )

    def __post_init__(self) -> None:
        """Check every option, and their order."""
        super().__post_init__()
        if not (
            self.turn_end_threshold < self.turn_eager_end_threshold < self.turn_start_threshold
        ):
            raise ConfigError(
                "turn_end_threshold must be below turn_eager_end_threshold, and that below "
                "turn_start_threshold"
            )


class STT:
    """Cartesia's recognisers as a `StreamingSTT` (extra ``cartesia``).

    Ink-2 finds the turns in English: its eager end begins a reply, its end ends the turn. With
    another language or model, or with ``turns="local"``, the pipeline's own voice activity and turn
    detection do. The arguments are the fields of `CartesiaSTTOptions`, and are described in
    docs/providers/cartesia.md.

    Raises:
        ConfigError: A value is invalid, or there is no key.
    """

    rate = RATE

    @takes(CartesiaSTTOptions)
    def __init__(self, options: CartesiaSTTOptions) -> None:
        self._service = SpeechService(CARTESIA, options)
        self._reconnect = options.reconnect
        english = options.language is None or options.language.split("-")[0] == "en"
        model = options.model or ("ink-2" if english else "ink-whisper")
        finds_turns = english and not model.startswith("ink-whisper")
        if options.turns == "service" and not finds_turns:
            raise ConfigError(
                "turns='service' is for English with ink-2: leave turns out, and give the agent a "
                "vad and a turn_detection"
            )
        local = options.turns == "local" or not finds_turns
        self.turns: Literal["service", "local"] = "local" if local else "service"
        shared: Query = (
            ("model", model),
            ("encoding", "pcm_s16le"),
            ("sample_rate", RATE),
        )
        codec: Callable[..., STTCodec[bytes]]
        if local:
            codec, path, self._traits = CartesiaManualCodec, "/stt/websocket", MANUAL_TRAITS
            query: Query = (*shared, ("language", options.language or "en"))
        else:
            codec, path, self._traits = CartesiaTurnsCodec, "/stt/turns/websocket", TRAITS
            query = (*shared, *_turn_options(options))
        self._make_codec = partial(codec, self._service.error)
        self._make_wire = partial(self._service.websocket, path, query)

    def connect(self) -> STTConnection:
        """Return the transcription of a new conversation."""
        return SocketSTT[bytes](
            self._traits,
            RATE,
            make_codec=self._make_codec,
            make_wire=self._make_wire,
            clock=self._service.clock,
            reconnect=self._reconnect,
            origin=self,
        )


def _turn_options(options: CartesiaSTTOptions) -> Query:
    return (
        ("turn_start_threshold", options.turn_start_threshold),
        ("turn_eager_end_threshold", options.turn_eager_end_threshold),
        ("turn_end_threshold", options.turn_end_threshold),
        ("turn_end_timeout_ms", options.turn_end_timeout_ms),
        *(("keyterm", keyterm) for keyterm in options.keyterms),
    )
