"""What the simulated carriers share on the command line."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import wave
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from duologue.cli.extras import require_extras
from duologue.cli.options import run_in_chosen_loop
from duologue.cli.simulate.serving import Options, serve
from duologue.errors import ConfigError

if TYPE_CHECKING:
    from duologue.simulators.telephone.caller import PhoneCaller
    from duologue.simulators.telephone.service import PhoneSimulator

DEFAULT_KEY = "simulated-key-of-a-carrier-0123456789"
"""The key of both sides, unless another one is given."""

DEFAULT_PORT = 8765
"""Where the REST interface is, unless the command only calls once."""

KEYS = "0123456789*#ABCD"
"""The keys of a telephone."""


@dataclass(frozen=True, slots=True)
class PhoneOptions:
    """Values of the options that all simulated carriers share."""

    app_url: str
    host: str
    port: int | None
    key: str | None
    call: bool
    say: tuple[Path, ...]
    press: str
    seconds: float
    caller: str
    called: str
    parameter: tuple[str, ...]
    out: Path | None
    delay: float
    jitter: float
    lost: float
    reorder: float
    marks: Literal["returned", "never"]


def phone_options(command: Callable[[PhoneOptions], None]) -> Callable[..., Any]:
    """Add the shared options to a command, which gets them as `PhoneOptions`."""
    file = click.Path(path_type=Path, dir_okay=False)
    share = click.FloatRange(0, 1)
    decorators = [
        click.argument("app_url", metavar="APP_URL", default="http://localhost:8000"),
        click.option(
            "--host", default="127.0.0.1", show_default=True, help="Address of the REST interface."
        ),
        click.option(
            "--port",
            type=click.IntRange(0, 65535),
            help="Port of the REST interface; 0 takes a free one. By default 8765; with --call, "
            "which can do without it, a free one if that is taken.",
        ),
        click.option("--key", metavar="TEXT", help="Key of the app at the carrier."),
        click.option("--call", is_flag=True, help="Call the app once, and end."),
        click.option(
            "--say",
            type=file,
            multiple=True,
            help="Recorded speech of the caller; may be given several times.",
        ),
        click.option("--press", default="", metavar="KEYS", help="Keys to press after speaking."),
        click.option(
            "--seconds",
            type=click.FloatRange(0),
            default=10.0,
            show_default=True,
            help="How long the caller listens, after each speech and at the end.",
        ),
        click.option(
            "--from",
            "caller",
            default="+15550001111",
            show_default=True,
            help="The number that calls.",
        ),
        click.option(
            "--to",
            "called",
            default="+15552223333",
            show_default=True,
            help="The number that is called.",
        ),
        click.option(
            "--parameter",
            multiple=True,
            metavar="NAME=VALUE",
            help="A parameter of the stream; may be given several times.",
        ),
        click.option("--out", type=file, help="Write what the caller heard to this WAV file."),
        click.option("--delay", type=float, default=0.0, metavar="MS", help="Delay of messages."),
        click.option(
            "--jitter", type=float, default=0.0, metavar="MS", help="Further, random delay."
        ),
        click.option("--lost", type=share, default=0.0, help="Share of media that is lost."),
        click.option("--reorder", type=share, default=0.0, help="Share that changes places."),
        click.option(
            "--marks",
            type=click.Choice(["returned", "never"]),
            default="returned",
            show_default=True,
            help="What becomes of the marks of audio that was cleared.",
        ),
    ]

    def run(**options: Any) -> None:
        from duologue._net import is_loopback

        taken = PhoneOptions(**{field.name: options[field.name] for field in fields(PhoneOptions)})
        if not is_loopback(taken.host) and not taken.key:
            raise ConfigError(f"--host {taken.host} lets others in: give a --key of your own")
        command(taken)

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    wrapped: Callable[..., Any] = run
    for decorator in reversed(decorators):
        wrapped = decorator(wrapped)
    return wrapped


def run_simulator(
    make: Callable[..., PhoneSimulator],
    options: PhoneOptions,
    variable: str,
    settings: Callable[[PhoneSimulator], str] = lambda service: "",
) -> None:
    """Call the app once, or serve the REST interface until Ctrl-C.

    Args:
        make: The simulator.
        options: Values of the shared options.
        variable: Environment variable in which apps have the key.
        settings: Further variables that an app needs.

    Raises:
        ConfigError: An option is wrong.
    """
    require_extras("simulate", "simulate")
    from duologue.simulators.telephone.caller import LineFaults

    if not options.app_url.startswith(("http://", "https://")):
        raise ConfigError(
            f"the address must begin with http:// or https://, not {options.app_url!r:.80}"
        )
    if options.press and (not options.call or set(options.press.upper()) - set(KEYS)):
        raise ConfigError(
            f"--press must be keys such as 12#, not {options.press!r:.40}"
            if options.call
            else "--press needs --call: only then somebody calls"
        )
    port = options.port
    if port is None:
        # Only Telnyx can't be called without it: there, apps answer calls by REST.
        needed = not options.call or variable.startswith("TELNYX")
        port = DEFAULT_PORT if needed or _is_free(options.host, DEFAULT_PORT) else 0
    key = options.key or os.environ.get(variable) or DEFAULT_KEY
    faults = LineFaults(
        delay_ms=options.delay,
        jitter_ms=options.jitter,
        lost=options.lost,
        reorder=options.reorder,
        marks_after_clear=options.marks,
    )
    service = make(options.app_url, key=key, host=options.host, port=port, faults=faults)
    shown = "..." if options.key else key
    prefix = service.name.upper()

    def lines() -> list[str]:
        more = settings(service)
        return [
            f"base_url   {service.url}",
            f"{variable}={shown} {prefix}_BASE_URL={service.url}{' ' if more else ''}{more}",
        ]

    if options.call:
        failures = run_in_chosen_loop(_call_once(service, options))
        for failure in failures:
            click.echo(failure, err=True)
        if failures:
            sys.exit(1)
        return
    serve(service, Options(options.host, port, "echo", "tiny", (), 1.0, key), lines)


def _is_free(host: str, port: int) -> bool:
    try:
        with socket.create_server((host, port)):
            return True
    except OSError:
        return False


async def _call_once(service: PhoneSimulator, options: PhoneOptions) -> list[str]:
    """Place one call; return what went wrong."""
    import aiohttp

    from duologue.edges.audio_file import load_audio
    from duologue.simulators.telephone.caller import CallRejectedError

    parameters = {}
    for each in options.parameter:
        name, equals, value = each.partition("=")
        if not (name and equals):
            raise ConfigError(f"--parameter must be NAME=VALUE, not {each!r}")
        parameters[name] = value
    speech = [load_audio(str(file)) for file in options.say]
    async with service:
        call = service.caller(caller=options.caller, called=options.called, parameters=parameters)
        click.echo(f"Calling {call.webhook_url}")
        try:
            async with call:
                click.echo("The app has answered.")
                for clip in speech:
                    await call.say(clip)
                    await _listen(call, options.seconds)
                if options.press:
                    call.press(options.press.upper())
                if options.press or not speech:
                    await _listen(call, options.seconds)
                if call.ended.is_set() and call.close_code in (None, 1000):
                    click.echo("The app has hung up.")
        except (CallRejectedError, aiohttp.ClientError) as error:
            return [f"the call failed: {error}"]
    click.echo(f"Heard {call.played.duration:.1f} s of audio; {call.clears} interruptions.")
    if options.out is not None:
        _write(options.out, call)
    if call.close_code not in (None, 1000):
        reason = "it failed, see its log" if call.close_code == 1011 else "see its log"
        return [*call.violations, f"the app closed the call with {call.close_code}: {reason}"]
    return call.violations


async def _listen(call: PhoneCaller, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await call.ended.wait()
    except TimeoutError:
        pass  # The app has not hung up.


def _write(file: Path, call: PhoneCaller) -> None:
    try:
        with wave.open(str(file), "wb") as out:
            out.setnchannels(1)
            out.setsampwidth(2)
            out.setframerate(call.rate)
            out.writeframes(call.played.to_bytes())
    except OSError as error:
        raise ConfigError(f"{file}: {(error.strerror or str(error)).lower()}") from None
    click.echo(f"Wrote {file}")
