"""The options of a Nova Sonic session, checked when they are given."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Literal

from duologue.errors import ConfigError
from duologue.json_types import Json, JsonObject
from duologue.providers._options import (
    NetworkOptions,
    audio_only,
    between,
    instance_of,
    one_of,
    option,
    text,
    voice_name,
)
from duologue.providers.aws._capabilities import generation_of
from duologue.providers.aws._credentials import Credentials, CredentialSource
from duologue.realtime.options import SemanticVAD, ServerVAD, Transcription, check_supported
from duologue.realtime.reconnect import ReconnectPolicy
from duologue.vad.vad import VAD

VOICES = (
    "amy", "ambre", "arjun", "beatrice", "carlos", "carolina", "florian", "kiara", "lennart",
    "leo", "lorenzo", "lupe", "matthew", "olivia", "tiffany", "tina",
)  # fmt: skip
"""The voices of Nova 2 Sonic. Any other name is sent to the service unchanged."""
RATES = (8000, 16000, 24000)
"""Rates of audio in Hz that the service accepts."""
MAX_OUTPUT_TOKENS = 10000
"""The largest token limit of one reply that other clients of the service send."""
EXTENDED_EVENTS = ("sessionStart", "promptStart")
"""Events that ``extra`` may add fields to."""


def _check_region(name: str, value: object) -> None:
    if not isinstance(value, str) or not re.fullmatch(r"[a-z0-9-]+", value):
        raise ConfigError(f"{name} must be an AWS region such as us-east-1, not {value!r}")


def _check_turn_detection(name: str, value: object) -> None:
    if not isinstance(value, SemanticVAD | ServerVAD):
        raise ConfigError(
            f"{name} must be SemanticVAD or ServerVAD, because the model ends turns by itself, "
            f"not {value!r}"
        )
    check_supported("Nova Sonic", value, ("eagerness",))


def _check_transcription(name: str, value: object) -> None:
    if not isinstance(value, Transcription):
        raise ConfigError(f"{name} must be Transcription(), because the model always transcribes")
    check_supported("Nova Sonic", value, ())


def _check_tool_choice(name: str, value: object) -> None:
    if not isinstance(value, str) or value in ("", "none"):
        raise ConfigError(
            f"{name} must be auto, any or the name of a tool; for none, give no tools"
        )


def _check_credentials(name: str, value: object) -> None:
    if not isinstance(value, Credentials | Callable):
        raise ConfigError(f"{name} must be aws.Credentials or a function that returns them")


def _check_extra(name: str, value: object) -> None:
    valid = isinstance(value, Mapping) and all(
        event in EXTENDED_EVENTS and isinstance(fields, dict) for event, fields in value.items()
    )
    if not valid:
        raise ConfigError(f"{name} must have fields by event: {' or '.join(EXTENDED_EVENTS)}")


@dataclass(frozen=True)
class RealtimeConfig(NetworkOptions):
    """All options of `Realtime`. The defaults of the numbers come from the AWS guides."""

    model: str = option(
        "amazon.nova-2-sonic-v1:0",
        "or `amazon.nova-2-5-sonic`, which can do the same, `amazon.nova-sonic-v1:0`, an inference "
        "profile, an ARN; an unknown name counts as the newest",
        check=text("the id of a model such as amazon.nova-2-sonic-v1:0"),
    )
    voice: str = option(
        "matthew",
        f"{', '.join(VOICES)}; others are sent to the service unchanged, with a warning in the log",
        check=voice_name(*VOICES),
    )
    _: KW_ONLY
    output: Literal["audio"] = option(
        "audio", "the models answer in audio only", check=audio_only("Nova")
    )
    region: str = option("us-east-1", "an AWS region that has the model", check=_check_region)
    turn_detection: SemanticVAD | ServerVAD = option(
        SemanticVAD(eagerness="high"),
        "how soon a pause ends the person's turn: an eagerness of `high` (1.5 s), `medium` or "
        "`low`, or `auto` for the service's default, as with `ServerVAD()`; Nova 2 only",
        check=_check_turn_detection,
        shown='`SemanticVAD("high")`',
    )
    transcription: Transcription = option(
        Transcription(),
        "the model always transcribes, and has no options for it",
        check=_check_transcription,
    )
    max_output_tokens: int = option(
        1024,
        f"the most tokens of one reply, 1 to {MAX_OUTPUT_TOKENS}",
        check=between(1, MAX_OUTPUT_TOKENS, integer=True),
    )
    temperature: float = option(0.7, "0 to 1", check=between(0, 1))
    top_p: float = option(0.9, "0 to 1", check=between(0, 1))
    input_rate: int = option(
        16000,
        "rate of the input audio in Hz: 8000, 16000 or 24000; audio of other rates is resampled",
        check=one_of(*RATES),
    )
    output_rate: int = option(
        24000, "rate of the agent's audio in Hz: 8000, 16000 or 24000", check=one_of(*RATES)
    )
    tool_choice: str | None = option(
        None, "auto, any, or the name of a tool", check=_check_tool_choice
    )
    profile: str | None = option(None, "a profile of the AWS configuration files")
    credentials: CredentialSource | None = option(
        None,
        "`aws.Credentials`, or a function that returns them for each stream, "
        "see [credentials](#credentials)",
        check=_check_credentials,
        secret=True,
    )
    base_url: str | None = option(
        None,
        "for VPC endpoints and the simulated service; `http:` only on this machine",
        shown="`AWS_ENDPOINT_URL_BEDROCK_RUNTIME`, `AWS_ENDPOINT_URL` or that of the region",
        secret=True,
    )
    proxy: str | None = option(
        None,
        "an HTTP proxy that accepts `CONNECT`, as `http://user:password@host:port`; that of the "
        "environment is not used for this machine and for `NO_PROXY`; proxies of other kinds "
        "(SOCKS) are an error",
        shown="`HTTPS_PROXY`, `ALL_PROXY`",
        secret=True,
    )
    headers: Mapping[str, str] | None = option(
        None, "additional HTTP headers of each stream, which are not signed", secret=True
    )
    ssl_context: ssl.SSLContext | None = option(
        None,
        "an `ssl.SSLContext` with the trusted certificates and the client's own; it is set to "
        "offer HTTP/2",
        shown="the system's authorities, or `AWS_CA_BUNDLE`",
    )
    extra: Mapping[str, Json] | None = option(
        None,
        "fields without an argument here, by event (`sessionStart`, `promptStart`), merged deep "
        "and last",
        check=_check_extra,
        secret=True,
    )
    vad: VAD | None = option(
        None,
        "detects when the person speaks, see [turns](#turns)",
        shown="`EarshotVAD`",
    )
    reconnect: ReconnectPolicy | None = option(
        None,
        "how streams are replaced, see [below](#eight-minutes)",
        check=instance_of(ReconnectPolicy, hint="a ReconnectPolicy"),
        shown="`aws.ROLL_OVER`",
    )

    def extra_fields(self, event: str) -> JsonObject:
        """Return the fields that ``extra`` adds to an event."""
        fields = (self.extra or {}).get(event)
        return fields if isinstance(fields, dict) else {}

    @property
    def _eagerness(self) -> str | None:
        detection = self.turn_detection
        return detection.eagerness if isinstance(detection, SemanticVAD) else None

    @property
    def endpointing(self) -> str | None:
        """The sensitivity of endpointing, in the service's words; None for its default."""
        eagerness = self._eagerness
        if not generation_of(self.model).has_endpointing or eagerness in (None, "auto"):
            return None
        return str(eagerness).upper()

    def __post_init__(self) -> None:
        """Check the options, each and for the model."""
        super().__post_init__()
        if (
            self._eagerness not in (None, "auto", "high")
            and not generation_of(self.model).has_endpointing
        ):
            raise ConfigError(f"turn_detection needs Nova 2 Sonic, not {self.model}")
        if self.profile is not None and self.credentials is not None:
            raise ConfigError("give profile or credentials, not both")
