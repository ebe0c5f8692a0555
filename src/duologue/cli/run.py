"""``duologue run``: hold one conversation from files."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from duologue.cli.agent_source import AgentSource, agent_source
from duologue.cli.app_path import is_app_path
from duologue.cli.event_relay import EventRelay, relayed
from duologue.cli.extras import require_extras
from duologue.cli.options import ModelOptions, model_options, run_in_chosen_loop

if TYPE_CHECKING:
    from duologue.agent.agent import Agent
    from duologue.cli.transcript_printer import TranscriptPrinter
    from duologue.edges import wav
    from duologue.edges.protocol import Edge

type StartAgent = Callable[[TranscriptPrinter], Awaitable[Agent | None]]
"""Makes the agent of a conversation, whose events the printer gets; None if it is over already."""

_END_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
"""Signals from a service manager or a closed terminal, which end a conversation like Ctrl-C."""


@click.command()
@click.argument(
    "files", metavar="[APP] IN.wav...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option(
    "--out",
    metavar="OUT.wav",
    type=click.Path(path_type=Path),
    help="Record both voices in stereo: left the person, right the agent.",
)
@click.option(
    "--events",
    metavar="EVENTS.jsonl",
    type=click.Path(path_type=Path),
    help='Write every event, one JSON a line: {"t": seconds, "type": ..., its fields}.',
)
@click.option(
    "--picture",
    metavar="OUT.png",
    type=click.Path(path_type=Path),
    help="Draw both voices, the turns and the latencies; needs --out.",
)
@click.option("--say", metavar="TEXT", help="The agent speaks first, and says exactly this.")
@click.option(
    "--interject",
    metavar="IN.wav",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Interrupt the agent with this; may be given several times.",
)
@click.option(
    "--after",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    default=1.0,
    show_default=True,
    help="Seconds of agent speech after which an interjection begins.",
)
@click.option(
    "--fast",
    is_flag=True,
    help="Run as fast as the model computes, not in real time. Latencies are not reported then, "
    "because virtual time stops while the model computes.",
)
@click.option("--quiet", is_flag=True, help="Print no conversation.")
@model_options
def run(
    files: tuple[Path, ...],
    out: Path | None,
    events: Path | None,
    picture: Path | None,
    say: str | None,
    interject: tuple[Path, ...],
    after: float,
    fast: bool,
    quiet: bool,
    model: ModelOptions,
) -> None:
    """Hold one conversation with recorded speech, in real time or faster.

    APP is module:function or file.py:function, a function of yours that gets the edge and returns
    an Agent, or a coroutine function that conducts the conversation. Without it, the options
    describe a model: the built-in engine by default.

    IN.wav is a WAV, FLAC, Ogg or MP3 file of any rate and channel count. With several files, each
    is spoken when the agent has replied to the one before. After the last reply the person hangs
    up.

    Ctrl-C ends the conversation early, keeps what was recorded and prints what was written. So do
    SIGTERM and SIGHUP.

    Exit code: 0 if the session ended cleanly, 1 if it did not or a file could not be written to its
    end, 2 for a file or an option that can't be used, 130 after Ctrl-C (143 after SIGTERM, 129
    after SIGHUP).

    \b
    duologue run question.wav --out talk.wav --events talk.jsonl
    duologue run question.wav --interject wait.wav --after 1.5 --out talk.wav
    duologue run app:make_agent question.wav
    duologue run question.wav --llm openai
    """
    from duologue.edges import wav
    from duologue.errors import ConfigError
    from duologue.testing.virtual_time import run_virtual

    app = str(files[0]) if is_app_path(str(files[0])) else None
    if app is not None:
        files = files[1:]
        if not files:
            raise ConfigError(f"run needs a recording too: duologue run {app} IN.wav")
    source = agent_source(app, model)
    require_extras("run", *source.extras, *(() if "local" in source.extras else ("wav",)))
    if picture is not None and out is None:
        raise ConfigError("--picture draws the recording: give --out too")
    _check_files([*files, *interject], [out, events, picture])
    if fast and not source.in_process:
        raise ConfigError("--fast needs a model in this process: leave out --fast, or --llm")
    edge_class = wav.Edge if app is None else relayed(wav.Edge)
    edge = edge_class(
        files,
        out,
        interjections=[wav.Interjection(path, after) for path in interject],
    )
    agent = starting(source, edge)
    start = run_virtual if fast else run_in_chosen_loop
    printer = run_conversation(
        converse(agent, echo=not quiet, events=events, say=say, measured=not fast),
        start,
        describe_files=lambda: describe_files(edge, out, events),
    )
    if picture is not None and out is not None:
        from duologue.cli.plot import draw_conversation

        draw_conversation(out, printer.events, picture, measured=not fast)
    if not quiet:
        click.echo(printer.summary())
    exit_on_failure(printer, edge)


def _check_files(inputs: Sequence[Path], outputs: Sequence[Path | None]) -> None:
    """Raise `ConfigError` if one of ``outputs`` would overwrite an input or another output."""
    from duologue.errors import ConfigError

    taken = {path.resolve() for path in inputs}
    for path in outputs:
        if path is None:
            continue
        if path.resolve() in taken:
            raise ConfigError(f"{path} is named twice: give each output a file of its own")
        taken.add(path.resolve())


def run_conversation(
    conversation: Coroutine[Any, Any, TranscriptPrinter],
    runner: Callable[[Coroutine[Any, Any, TranscriptPrinter]], TranscriptPrinter] | None = None,
    *,
    describe_files: Callable[[], str] | None = None,
) -> TranscriptPrinter:
    """Run a conversation; on SIGTERM and SIGHUP end it as on Ctrl-C, keep its files, and exit.

    Args:
        conversation: The conversation, such as `converse`.
        runner: Runs a coroutine; by default in the event loop that ``duologue --loop`` names.
        describe_files: Returns the line about the written files that is printed before exiting.
            Without it, the caller must handle Ctrl-C.
    """
    ended_by: signal.Signals | None = None

    async def main() -> TranscriptPrinter:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()

        def end(number: signal.Signals) -> None:
            nonlocal ended_by
            ended_by = number
            if task is not None:
                task.cancel()

        for number in _END_SIGNALS:
            if signal.getsignal(number) is signal.SIG_IGN:  # ignored under nohup
                continue
            with suppress(
                NotImplementedError, RuntimeError, ValueError
            ):  # not supported on this platform or in this thread
                loop.add_signal_handler(number, end, number)
        return await conversation

    try:
        return (runner or run_in_chosen_loop)(main())
    except asyncio.CancelledError:
        if ended_by is None:
            raise
        _exit_by_signal(ended_by, describe_files)
    except KeyboardInterrupt:
        if describe_files is None:
            raise
        _exit_by_signal(signal.SIGINT, describe_files)


def describe_files(edge: wav.Edge, out: Path | None, events: Path | None = None) -> str:
    """Return a line about the files of a conversation that was ended early."""
    files = []
    if out is not None and edge.recorded_s:
        files.append(f"{out} ({edge.recorded_s:.1f} s)")
    if events is not None and events.exists():
        files.append(str(events))
    return f"Wrote {' and '.join(files)}." if files else "Nothing was written."


def _exit_by_signal(number: signal.Signals, describe_files: Callable[[], str] | None) -> NoReturn:
    with suppress(OSError):  # the terminal may be closed
        if describe_files is not None:
            click.echo(f"\nStopped. {describe_files()}", err=True)
    sys.exit(128 + number)


def starting(source: AgentSource, edge: Edge) -> StartAgent:
    """Return what prepares a source, and makes or conducts its agent on ``edge``."""

    async def start(printer: TranscriptPrinter) -> Agent | None:
        warning = await source.prepare()
        if warning:
            click.echo(f"Note: {warning}", err=True)
        if isinstance(edge, EventRelay):
            edge.on_event = printer.handle
            return await source.call(edge)
        agent = await source.call(edge)
        if agent is not None:
            printer.subscribe(agent.events)
        return agent

    return start


async def converse(
    agent: Agent | StartAgent,
    *,
    echo: bool,
    events: Path | None = None,
    say: str | None = None,
    live: bool = False,
    measured: bool = True,
) -> TranscriptPrinter:
    """Join the agent until the person has left; return the printer that followed the conversation.

    Args:
        agent: The agent, or a function that makes it (see `starting`).
        echo: Print the conversation.
        events: File for the events as JSON lines.
        say: A text that the agent speaks first.
        live: Show the person's words while they are spoken.
        measured: Whether latencies mean anything, which they don't in virtual time.
    """
    from duologue.agent.agent import Agent
    from duologue.cli.strain import LoadMonitor
    from duologue.cli.transcript_printer import TranscriptPrinter
    from duologue.errors import ConfigError

    now = asyncio.get_running_loop().time
    printer = TranscriptPrinter(now, echo=echo, live=live, measured=measured)
    load = LoadMonitor()
    if events is not None:
        printer.write_to(events)
    try:
        if isinstance(agent, Agent):
            printer.subscribe(agent.events)
            made: Agent | None = agent
        else:
            made = await agent(printer)
        if made is None:
            if say is not None:
                raise ConfigError("--say needs a function that returns an Agent: leave it out")
            return printer
        async with made.join():
            load.start()  # loading has ended
            watching = asyncio.create_task(load.watch_timers(), name="strain")
            try:
                if say is not None:
                    made.say(say)
                await made.finish()
            finally:
                watching.cancel()
                await asyncio.wait({watching})
    finally:
        printer.close()
    if measured:
        printer.warning = load.warning()
    return printer


def exit_on_failure(printer: TranscriptPrinter, edge: wav.Edge | None = None) -> None:
    """Exit with 1 and a message if the session did not end cleanly, or a file is incomplete."""
    if printer.disconnected_event is None or not printer.disconnected_event.clean:
        reason = (
            "it never began"
            if printer.disconnected_event is None
            else printer.disconnected_event.reason
        )
        click.echo(f"duologue: the session did not end cleanly: {reason}", err=True)
        sys.exit(1)
    if printer.failure is not None or (edge is not None and edge.recording_failure is not None):
        sys.exit(1)
