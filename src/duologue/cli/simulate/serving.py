"""Options that all simulated services share, and serving until Ctrl-C."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import click

from duologue.cli.options import run_in_chosen_loop


@dataclass(frozen=True, slots=True)
class Options:
    """Values of the shared options; ``key`` is None if none was given."""

    host: str
    port: int
    backend: str
    profile: str
    faults: tuple[str, ...]
    clock_scale: float
    key: str | None


class Simulator(Protocol):
    """A simulated service."""

    @property
    def failures(self) -> list[str]:
        """Failed expectations of scripts."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


def simulator_options(
    *, clock_scale_help: str
) -> Callable[[Callable[..., None]], Callable[..., Any]]:
    """Add the shared options to a command, which gets them as one `Options` before its own.

    The command raises `ConfigError` for another host without a key.

    Args:
        clock_scale_help: How ``--clock-scale`` changes the length of sessions.
    """
    decorators = [
        click.option(
            "--host", default="127.0.0.1", show_default=True, help="Address to listen on."
        ),
        click.option(
            "--port",
            type=click.IntRange(0, 65535),
            default=8765,
            show_default=True,
            help="Port to listen on; 0 takes a free one.",
        ),
        click.option(
            "--backend",
            metavar="echo|local|loopback|SCRIPT.yaml",
            default="echo",
            show_default=True,
            help="What replies: an echo of each turn, the built-in engine, an echo without delay, "
            "or a script.",
        ),
        click.option(
            "--profile",
            type=click.Choice(["tiny", "small", "better"]),
            default="tiny",
            show_default=True,
            help="Size of the engine, for --backend local.",
        ),
        click.option(
            "--faults",
            multiple=True,
            metavar="NAME|FILE.yaml",
            help="A fault to inject; may be given several times.",
        ),
        click.option(
            "--clock-scale",
            type=click.FloatRange(0.0, min_open=True),
            default=1.0,
            show_default=True,
            help=clock_scale_help,
        ),
        click.option(
            "--key",
            metavar="TEXT",
            help="The key that is accepted; required with another --host.",
        ),
    ]

    def decorate(command: Callable[..., None]) -> Callable[..., Any]:
        shared = {field.name for field in fields(Options)}

        def run(**options: Any) -> None:
            from duologue._net import is_loopback
            from duologue.errors import ConfigError

            own = {name: options.pop(name) for name in [*options] if name not in shared}
            taken = Options(**options)
            if not is_loopback(taken.host) and not taken.key:
                raise ConfigError(f"--host {taken.host} lets others in: give a --key of your own")
            command(taken, **own)

        run.__name__, run.__doc__ = command.__name__, command.__doc__
        wrapped: Callable[..., Any] = run
        for decorator in reversed(decorators):
            wrapped = decorator(wrapped)
        return wrapped

    return decorate


def serve(simulator: Simulator, options: Options, lines: Callable[[], Sequence[str]]) -> None:
    """Print ``lines``, and serve until Ctrl-C or SIGTERM.

    At the end, print what scripts expected and did not get; if there is anything, exit with 1.
    """

    async def main() -> None:
        stopped = asyncio.Event()
        with suppress(
            NotImplementedError, RuntimeError, ValueError
        ):  # not supported on this platform or in this thread
            for number in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        if options.backend == "local":
            click.echo("Loading the engine ...")
        try:
            async with simulator:
                for line in lines():
                    click.echo(line)
                click.echo("Ctrl-C ends it.")
                await stopped.wait()
                click.echo("")
        finally:
            for failure in simulator.failures:
                click.echo(failure, err=True)

    try:
        run_in_chosen_loop(main())
    except KeyboardInterrupt:
        click.echo("")
    if simulator.failures:
        sys.exit(1)


def write_certificate(file: Path, pem: bytes) -> None:
    """Write a certificate to a file.

    Raises:
        ConfigError: The file can't be written.
    """
    from duologue.errors import ConfigError

    try:
        file.write_bytes(pem)
    except OSError as error:
        raise ConfigError(f"{file}: {(error.strerror or str(error)).lower()}") from None
