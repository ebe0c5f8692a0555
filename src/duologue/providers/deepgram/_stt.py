"""Deepgram's recognisers: Flux, which finds turns, and Nova."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Literal

from duologue.errors import ConfigError
from duologue.pipeline.interfaces import STTConnection
from duologue.pipeline.socket_stt import SocketSTT
from duologue.pipeline.stt_codec import RecognizerTraits, STTCodec
from duologue.providers._options import between, option, takes, text
from duologue.providers._speech_service import Query, SpeechOptions, SpeechService
from duologue.providers.deepgram._flux_stt_codec import FluxCodec
from duologue.providers.deepgram._nova_stt_codec import NovaCodec
from duologue.providers.deepgram._service import DEEPGRAM

RATE = 16000
FLUX_TRAITS = RecognizerTraits(silence_s=0.5, idle_silence_s=5.0)
NOVA_TRAITS = RecognizerTraits(turns="local", silence_s=None, keep_alive_s=4.0)


@dataclass(frozen=True)
class DeepgramSTTOptions(SpeechOptions):
    """Options of Deepgram's recognisers."""

    model: str = option(
        "flux-general-en",
        "`flux-general-en` or `flux-general-multi`, which find turns, or a Nova model",
        check=text("the name of a model"),
    )
    _: KW_ONLY
    language: str | None = option(
        None,
        "language of the speech for a Nova model, such as `en`, or `multi`",
        check=text("a language such as en"),
        shown="the model's",
    )
    language_hints: Sequence[str] = option((), "languages that `flux-general-multi` should expect")
    keyterms: Sequence[str] = option((), "words that it should expect")
    eot_threshold: float = option(
        0.7, "0.5 to 1: how sure Flux must be that a turn is over", check=between(0.5, 1.0)
    )
    eager_eot_threshold: float | None = option(
        0.4,
        "0.3 to 0.9: how sure Flux must be before a reply is begun; None: only when it is over",
        check=between(0.3, 0.9),
    )
    eot_timeout_ms: int = option(
        5000,
        "500 to 60000: milliseconds of silence after which Flux ends a turn",
        check=between(500, 60000, integer=True),
    )


class STT:
    """Deepgram's recognisers as a `StreamingSTT` (extra ``deepgram``).

    A Flux model finds the turns: its eager end begins a reply, its end ends the turn. With a Nova
    model, the pipeline's own voice activity and turn detection do. The arguments are the fields of
    `DeepgramSTTOptions`, and are described in docs/providers/deepgram.md.

    Raises:
        ConfigError: A value is invalid, or there is no key.
    """

    rate = RATE

    @takes(DeepgramSTTOptions)
    def __init__(self, options: DeepgramSTTOptions) -> None:
        flux = options.model.startswith("flux")
        eager = options.eager_eot_threshold
        if flux and options.language is not None:
            raise ConfigError("language is for Nova models: give Flux language_hints")
        if eager is not None and eager > options.eot_threshold:
            raise ConfigError("eager_eot_threshold must not be above eot_threshold")
        self.turns: Literal["service", "local"] = "service" if flux else "local"
        self._service = SpeechService(DEEPGRAM, options)
        self._reconnect = options.reconnect
        shared: Query = (
            ("model", options.model),
            ("encoding", "linear16"),
            ("sample_rate", RATE),
            *(("keyterm", keyterm) for keyterm in options.keyterms),
        )
        codec: Callable[..., STTCodec[bytes]]
        if flux:
            codec, path, self._traits = FluxCodec, "/v2/listen", FLUX_TRAITS
            query: Query = (
                *shared,
                ("eot_threshold", options.eot_threshold),
                ("eager_eot_threshold", eager),
                ("eot_timeout_ms", options.eot_timeout_ms),
                *(("language_hint", hint) for hint in options.language_hints),
            )
        else:
            codec, path, self._traits = NovaCodec, "/v1/listen", NOVA_TRAITS
            query = (
                *shared,
                ("language", options.language),
                ("interim_results", True),
                ("endpointing", False),
                ("smart_format", True),
                ("no_delay", True),
                ("punctuate", True),
            )
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
