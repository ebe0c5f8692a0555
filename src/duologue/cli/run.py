"""``duologue run``: one conversation from files."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from duologue.cli.options import engine_options

if TYPE_CHECKING:
    from duologue.agent import Agent
    from duologue.cli.account import Account


@click.command()
@click.argument(
    "files", metavar="IN.wav...", nargs=-1, required=True, type=click.Path(path_type=Path)
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
    help="Speak this into the agent's answer; may be given several times.",
)
@click.option(
    "--after",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    default=1.0,
    show_default=True,
    help="How long the agent has spoken when an interjection begins.",
)
@click.option(
    "--fast",
    is_flag=True,
    help="Do not wait in real time: as fast as the model computes. Latencies then leave out the "
    "computing.",
)
@click.option("--quiet", is_flag=True, help="Print no conversation.")
@engine_options
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
    profile: str,
    instructions: str,
    offline: bool,
) -> None:
    """Hold one conversation with recorded speech, in real time, or faster.

    IN.wav is a WAV or FLAC file of any rate and channel count. Of several, each is spoken when
    the agent has answered the one before. When all is answered the person hangs up.

    Exit code: 0 when the session ended cleanly, 1 when it did not, 2 for a file or an option that
    can't be used.

    \b
    duologue run question.wav --out talk.wav --events talk.jsonl
    duologue run question.wav --interject wait.wav --after 1.5 --out talk.wav
    """
    from duologue.cli.options import make_agent
    from duologue.edges import wav
    from duologue.realtime.errors import ConfigError
    from duologue.testing.virtual_time import run_virtual

    if picture is not None and out is None:
        raise ConfigError("--picture draws the recording: give --out too")
    edge = wav.Edge(
        files,
        out,
        wait_for_greeting=say is not None,
        interjections=[wav.Interjection(path, after) for path in interject],
    )
    agent = make_agent(edge, profile, instructions, offline=offline, fast=fast)
    start = run_virtual if fast else asyncio.run
    account = hold(converse(agent, echo=not quiet, events=events, say=say), start)
    if picture is not None and out is not None:
        from duologue.cli.picture import draw_conversation

        draw_conversation(out, account.events, picture)
    if not quiet:
        click.echo(account.summary())
    finish(account)


def hold(
    conversation: Coroutine[Any, Any, Account],
    start: Callable[[Coroutine[Any, Any, Account]], Account] | None = None,
) -> Account:
    """Run a conversation; SIGTERM ends it as Ctrl-C does, with recordings kept, and exits."""
    terminated = False

    async def main() -> Account:
        nonlocal terminated
        loop, task = asyncio.get_running_loop(), asyncio.current_task()

        def terminate() -> None:
            nonlocal terminated
            terminated = True
            if task is not None:
                task.cancel()

        with suppress(NotImplementedError, RuntimeError, ValueError):  # no signals here
            loop.add_signal_handler(signal.SIGTERM, terminate)
        return await conversation

    try:
        return (start or asyncio.run)(main())
    except asyncio.CancelledError:
        if terminated:
            sys.exit(128 + signal.SIGTERM)
        raise


async def converse(
    agent: Agent,
    *,
    echo: bool,
    events: Path | None = None,
    say: str | None = None,
    live: bool = False,
) -> Account:
    """Join, and stay till the person has gone; returns the account of it."""
    from duologue.cli.account import Account

    account = Account(asyncio.get_running_loop().time, echo=echo, live=live)
    if events is not None:
        account.write_to(events)
    account.listen(agent.events)
    try:
        async with agent.join():
            if say is not None:
                agent.say(say)
            await agent.finish()
    finally:
        account.close()
    return account


def finish(account: Account) -> None:
    """Exit with 1, and a line, when the session did not end cleanly."""
    if account.ended is None or not account.ended.clean:
        reason = "it never began" if account.ended is None else account.ended.reason
        click.echo(f"duologue: the session did not end cleanly: {reason}", err=True)
        sys.exit(1)
