"""Options that several commands share.

``--llm`` and the options beside it describe a model (`ModelOptions`), which
`duologue.cli.agent_source` makes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from duologue.errors import ConfigError

if TYPE_CHECKING:
    from duologue.realtime.realtime import Realtime

    _StringType = click.ParamType[str]
else:
    _StringType = click.ParamType

DEFAULT_INSTRUCTIONS = (
    "You are a friendly voice assistant. Answer in one or two short spoken sentences."
)
DEFAULT_PROFILE = "small"

type Decorator = Callable[[Callable[..., None]], Callable[..., None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """Which model talks, as the options of a command describe it.

    Args:
        llm: ``PROVIDER`` or ``PROVIDER:MODEL``; None is the built-in engine.
        profile: Size of the built-in engine.
        voice: Name of the voice.
        instructions: Who the agent is.
        stt: ``NAME`` or ``NAME:MODEL`` of a recogniser.
        tts: ``NAME`` or ``NAME:VOICE`` of a voice.
        settings: ``key=value`` for the model; for a part the key begins with ``stt.`` or ``tts.``.
        offline: Fetch no weights.
        given: The spelling of those options above that were given.
    """

    llm: str | None = None
    profile: str | None = None
    voice: str | None = None
    instructions: str = DEFAULT_INSTRUCTIONS
    stt: str | None = None
    tts: str | None = None
    settings: tuple[str, ...] = ()
    offline: bool = False
    given: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check that the options go together."""
        for name, value in (("--llm", self.llm), ("--stt", self.stt), ("--tts", self.tts)):
            if value is not None and not value.partition(":")[0]:
                raise ConfigError(f"{name} must be PROVIDER or PROVIDER:MODEL, not {value!r}")
        if self.profile is not None and self.llm is not None:
            other = f"--llm local:{self.profile}"
            raise ConfigError(f"--profile is short for {other}: leave out one of --profile, --llm")

    @property
    def provider(self) -> str:
        """The name of the provider."""
        return (self.llm or "local").partition(":")[0]

    @property
    def model(self) -> str | None:
        """The name of the model; None for the provider's default."""
        if self.provider == "local":
            return self.profile or (self.llm or "").partition(":")[2] or DEFAULT_PROFILE
        return (self.llm or "").partition(":")[2] or None


def _load_instructions(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """Insert mentioned files of the working directory; escape all other mentions."""
    from duologue.agent.instructions import escape, load_instructions

    del ctx, param
    return escape(load_instructions(value, Path.cwd()))


class EngineProfile(_StringType):
    """A size of the built-in engine, or the GGUF chat model that it thinks with."""

    name = "profile"
    sizes = ("tiny", "small", "better")

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """Return the choices as help texts show them."""
        del param, ctx
        return f"[{'|'.join(self.sizes)}|hf:ORG/REPO/FILE.gguf|FILE.gguf]"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return ``value``, or end the program if it names nothing."""
        from duologue.weights import WeightsError, check_chat_model, parse_source

        if value in self.sizes:
            return value
        try:
            source = parse_source(value)
            if isinstance(source, Path) and source.is_file():
                check_chat_model(source)
                return value
        except (ConfigError, WeightsError) as error:
            self.fail(str(error), param, ctx)
        except OSError as error:
            self.fail(f"{value} can't be read: {error.strerror}", param, ctx)
        if isinstance(source, Path):
            choices = f"{', '.join(self.sizes)}, hf:ORG/REPO/FILE.gguf or the path of a GGUF file"
            self.fail(
                f"there is no file {value}" if names_file(value) else f"{value!r} is not {choices}",
                param,
                ctx,
            )
        return value


def profile_option(function: Callable[..., None]) -> Callable[..., None]:
    """Add the option ``--profile`` to a command."""
    return click.option(
        "--profile",
        type=EngineProfile(),
        help="Size of the built-in engine, short for --llm local:SIZE: tiny answers soonest, "
        "better knows most; small by default. Or the GGUF chat model that it thinks with: of a "
        "model hub, or a file of yours.",
    )(function)


def run_in_chosen_loop[T](main: Coroutine[Any, Any, T]) -> T:
    """Run ``main`` in the event loop that ``duologue --loop`` names."""
    from duologue._running import run_in_loop

    return run_in_loop(main, click.get_current_context().find_root().params["loop"])


_MODEL_OPTIONS = (
    click.option(
        "--llm",
        metavar="PROVIDER[:MODEL]",
        help="Model: openai, gemini, aws, qwen, local, or the text model of a pipeline; the "
        "built-in engine by default.",
    ),
    click.option("--voice", metavar="NAME", help="Voice of the model."),
    click.option(
        "--instructions",
        metavar="TEXT",
        default=DEFAULT_INSTRUCTIONS,
        callback=_load_instructions,
        help="Who the agent is and how it speaks; @notes.md pulls in a file.",
    ),
    click.option(
        "--stt",
        metavar="NAME[:MODEL]",
        help="Recogniser before a text model: cartesia, deepgram, elevenlabs, openai or local.",
    ),
    click.option(
        "--tts",
        metavar="NAME[:VOICE]",
        help="Voice after a text model: cartesia, deepgram, elevenlabs, openai or local.",
    ),
    click.option(
        "--set",
        "settings",
        metavar="KEY=VALUE",
        multiple=True,
        help="Option of the model, as in its documentation: speed=1.1; for a part stt.KEY or "
        "tts.KEY. May be given several times.",
    ),
    profile_option,
    click.option("--offline", is_flag=True, help="Fetch no weights; use what is here, or fail."),
)


def model_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add ``--llm`` and the options beside it to a command, which gets a `ModelOptions`."""
    names = ("llm", "voice", "instructions", "stt", "tts", "settings", "profile", "offline")

    @functools.wraps(function)
    def command(**params: Any) -> None:
        context = click.get_current_context()
        taken = {name: params.pop(name) for name in names}
        given = tuple(
            parameter.opts[0]
            for parameter in context.command.params
            if parameter.name in names
            and context.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE
        )
        function(model=ModelOptions(**taken, given=given), **params)

    decorated: Callable[..., None] = command
    for option in reversed(_MODEL_OPTIONS):
        decorated = option(decorated)
    return decorated


def make_realtime(profile: str, *, offline: bool, **settings: Any) -> Realtime:
    """Return the built-in engine in the size, or with the GGUF file, that ``profile`` names."""
    from duologue.providers.local import Realtime

    if names_file(profile):
        return Realtime(**{"llm": profile, **settings}, offline=offline)
    return Realtime(profile, offline=offline, **settings)


def names_file(profile: str) -> bool:
    """Return whether ``profile`` is the name of a GGUF file, and not of a size of the engine."""
    path = Path(profile)
    return profile not in EngineProfile.sizes and (
        bool(path.suffix) or "/" in profile or path.is_file()
    )
