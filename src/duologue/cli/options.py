"""Options that several commands share, and the agent that they describe."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from duologue.agent.agent import Agent
    from duologue.edges.protocol import Edge
    from duologue.realtime.realtime import Realtime

DEFAULT_INSTRUCTIONS = (
    "You are a friendly voice assistant. Answer in one or two short spoken sentences."
)

type Decorator = Callable[[Callable[..., None]], Callable[..., None]]


def _load_instructions(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """Insert mentioned files of the working directory; escape all other mentions."""
    from duologue.agent.instructions import escape, load_instructions

    del ctx, param
    return escape(load_instructions(value, Path.cwd()))


def run_in_chosen_loop[T](main: Coroutine[Any, Any, T]) -> T:
    """Run ``main`` in the event loop that ``duologue --loop`` names."""
    from duologue._running import run_in_loop

    return run_in_loop(main, click.get_current_context().find_root().params["loop"])


def engine_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options ``--profile``, ``--instructions`` and ``--offline`` to a command."""
    for option in reversed(
        (
            click.option(
                "--profile",
                type=click.Choice(["tiny", "small", "better"]),
                default="small",
                show_default=True,
                help="Size of the engine: tiny answers soonest, better knows most.",
            ),
            click.option(
                "--instructions",
                metavar="TEXT",
                default=DEFAULT_INSTRUCTIONS,
                callback=_load_instructions,
                help="Who the agent is and how it speaks; @notes.md pulls in a file.",
            ),
            click.option(
                "--offline", is_flag=True, help="Fetch no weights; use what is here, or fail."
            ),
        )
    ):
        function = option(function)
    return function


def make_realtime(profile: str, *, offline: bool) -> Realtime:
    """Return the built-in engine in the size that ``profile`` names."""
    from duologue.providers.local import Realtime

    return Realtime(profile, offline=offline)


def make_agent(edge: Edge, profile: str, instructions: str, *, offline: bool) -> Agent:
    """Return an agent with the built-in engine."""
    from duologue.agent.agent import Agent

    realtime = make_realtime(profile, offline=offline)
    return Agent(edge=edge, llm=realtime, instructions=instructions)
