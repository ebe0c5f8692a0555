"""Options of a provider's `Realtime`, declared once in a frozen dataclass.

Each field is made by `option`, with its documentation, its check and its place in the session's
JSON. From the dataclass come the signature of ``Realtime`` (`takes`), the checks
(`ServiceOptions.__post_init__`), simple fields of the JSON (`json_fields`) and the table in the
provider's documentation page (`table`).
"""

from __future__ import annotations

import dataclasses
import inspect
import ssl
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field, fields
from functools import wraps
from typing import Concatenate, cast

from duologue.clock import Clock
from duologue.errors import ConfigError
from duologue.json_types import Json, JsonObject
from duologue.providers._validate import (
    check_choice,
    check_mapping,
    check_positive,
    check_range,
    check_voice,
)
from duologue.realtime.options import set_fields
from duologue.realtime.reconnect import ReconnectPolicy
from duologue.vad.vad import VAD

type Check = Callable[[str, object], None]
"""Raises `ConfigError` for an invalid value of the option with that name."""

_DOC, _CHECK, _JSON, _SHOWN, _CONVERT = "doc", "check", "json", "shown", "convert"


def option[T](
    default: T,
    doc: str,
    *,
    check: Check | None = None,
    json: str | None = None,
    convert: Callable[..., Json] | None = None,
    shown: str | None = None,
    secret: bool = False,
) -> T:
    """Declare an option, as the default of a dataclass field.

    Args:
        default: The default. None leaves the value to the server, and skips ``check``.
        doc: What the option means, for the documentation.
        check: Checks a value.
        json: Path of the value in the session's JSON, such as ``audio.output.speed``.
        convert: Converts the value to JSON; by default it is sent unchanged.
        shown: The default as the documentation shows it.
        secret: Leave the value out of the dataclass's repr.
    """
    metadata = {_DOC: doc, _CHECK: check, _JSON: json, _SHOWN: shown, _CONVERT: convert}
    return field(default=default, repr=not secret, metadata=metadata)


def computed_option[T](factory: Callable[[], T], doc: str, *, shown: str, check: Check) -> T:
    """Declare an option whose default is the result of ``factory`` at that moment."""
    metadata = {_DOC: doc, _CHECK: check, _JSON: None, _SHOWN: shown, _CONVERT: None}
    return field(default_factory=factory, metadata=metadata)


def between(low: float, high: float, *, integer: bool = False) -> Check:
    """Return a check for numbers from ``low`` to ``high``."""
    return lambda name, value: check_range(name, value, low, high, integer=integer)


def one_of(*allowed: object, hint: str = "") -> Check:
    """Return a check for the ``allowed`` values."""
    return lambda name, value: check_choice(name, value, allowed, hint)


def voice_name(*known: str) -> Check:
    """Return a check for the name of a voice, which is preferably a ``known`` one."""
    return lambda _, value: check_voice(value, known)


def instance_of(*types: type, hint: str) -> Check:
    """Return a check for instances of ``types``; ``hint`` names them in the error."""

    def check(name: str, value: object) -> None:
        if not isinstance(value, types):
            raise ConfigError(f"{name} must be {hint}, not {value!r}")

    return check


def audio_only(service: str) -> Check:
    """Return a check for the output of a ``service`` whose models answer in audio only."""

    def check(name: str, value: object) -> None:
        if value != "audio":
            raise ConfigError(
                f"{service} answers in audio only, so {name} can't be {value!r}: leave it out, or "
                "use openai.Realtime or qwen.Realtime"
            )

    return check


def text(example: str) -> Check:
    """Return a check for a text that is not empty."""

    def check(name: str, value: object) -> None:
        if not isinstance(value, str) or not value:
            raise ConfigError(f"{name} must be {example}, not {value!r}")

    return check


def positive(name: str, value: object) -> None:
    """Raise `ConfigError` unless ``value`` is a finite number above 0."""
    check_positive(name, cast("float", value))


@dataclass(frozen=True)
class ServiceOptions:
    """Options of every service on a network."""

    _: KW_ONLY
    base_url: str | None = option(None, "address of the service", secret=True)
    headers: Mapping[str, str] | None = option(
        None, "additional HTTP headers of each connection", secret=True
    )
    proxy: str | None = option(
        None,
        "address of a proxy, such as `http://user:password@host:3128`",
        shown="from the environment",
        secret=True,
    )
    ssl_context: ssl.SSLContext | None = option(
        None, "an `ssl.SSLContext` with the trusted certificates and the client's own"
    )
    extra: Mapping[str, Json] | None = option(
        None,
        "fields without an argument here, merged into the session deep and last",
        check=check_mapping,
        secret=True,
    )
    reconnect: ReconnectPolicy | None = option(
        None,
        "how lost connections are replaced",
        check=instance_of(ReconnectPolicy, hint="a ReconnectPolicy"),
        shown="`ReconnectPolicy()`",
    )
    clock: Clock | None = option(None, "the clock, for tests", shown="the event loop's")

    def __post_init__(self) -> None:
        """Check every option that is set."""
        for one in fields(self):
            check: Check | None = one.metadata.get(_CHECK)
            value = getattr(self, one.name)
            if check is not None and (value is not None or one.default is not None):
                check(one.name, value)


@dataclass(frozen=True)
class NetworkOptions(ServiceOptions):
    """Options of every `Realtime` on a network."""

    _: KW_ONLY
    vad: VAD | None = option(
        None,
        "measures the person's voice here, for the [barge-in policy](../barge-in.md)",
        shown="`EarshotVAD`",
    )


def takes[S, O, **P](
    options: Callable[P, O],
) -> Callable[[Callable[[S, O], None]], Callable[Concatenate[S, P], None]]:
    """Give a method that takes an instance of ``options`` the parameters of that class."""
    parameters = [inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
    parameters += _parameters(cast("type", options))

    def decorate(init: Callable[[S, O], None]) -> Callable[Concatenate[S, P], None]:
        @wraps(init)
        def method(self: S, *args: P.args, **kwargs: P.kwargs) -> None:
            try:
                inspect.Signature(parameters[1:]).bind(*args, **kwargs)
            except TypeError as error:
                raise TypeError(f"{type(self).__name__}: {error}") from None
            given = options(*args, **kwargs)
            # For recordings of calls, which have to make the object again.
            self.options = given  # type: ignore[attr-defined]
            init(self, given)

        method.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        # For `providers.settings`, which reads the annotations of the fields.
        method.options_type = options  # type: ignore[attr-defined]
        return cast("Callable[Concatenate[S, P], None]", method)

    return decorate


def _parameters(options: type) -> list[inspect.Parameter]:
    """Return the parameters of a class of options, those of its base class last."""
    own = inspect.signature(options).parameters
    shared = {one.name for one in fields(NetworkOptions)}
    ordered = sorted(own.values(), key=lambda one: one.name in shared)
    return sorted(ordered, key=lambda one: one.kind is inspect.Parameter.KEYWORD_ONLY)


def json_fields(options: ServiceOptions) -> JsonObject:
    """Return the options that have a path in the JSON, without those that are None."""
    result: JsonObject = {}
    for one in fields(options):
        path: str | None = one.metadata.get(_JSON)
        value = getattr(options, one.name)
        if path is None or value is None:
            continue
        convert = one.metadata.get(_CONVERT)
        *parents, name = path.split(".")
        place = result
        for parent in parents:
            place = cast("JsonObject", place.setdefault(parent, {}))
        place[name] = value if convert is None else convert(value)
    return result


def json_values(value: object) -> JsonObject:
    """Return the fields that are set; they have the server's names."""
    return {
        name: list(one) if isinstance(one, tuple | list) else one  # type: ignore[misc]
        for name, one in set_fields(value).items()
    }


def table(options: type[ServiceOptions]) -> str:
    """Return the options as a Markdown table for the documentation."""
    by_name = {one.name: one for one in fields(options)}
    lines = ["| argument | default | meaning |", "|---|---|---|"]
    for parameter in _parameters(options):
        one = by_name[parameter.name]
        shown = one.metadata[_SHOWN] or _shown(one.default)
        lines.append(f"| `{one.name}` | {shown} | {one.metadata[_DOC]} |")
    return "\n".join(lines)


def _shown(default: object) -> str:
    if default is None:
        return "None"
    if dataclasses.is_dataclass(default):
        return f"`{type(default).__name__}()`"
    return f"`{default}`" if isinstance(default, str) else str(default)
