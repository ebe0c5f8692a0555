"""The command line; each command is imported only when it, or its help, is requested."""

from __future__ import annotations

import logging
import sys
from importlib import import_module
from typing import NoReturn

import click

_COMMANDS = {
    "demo": ("demo", "Listen to a recorded caller, then talk yourself on the page."),
    "talk": ("talk", "Talk in the terminal, by microphone and loudspeaker."),
    "serve": ("serve", "Serve the page to talk from in a browser."),
    "run": ("run", "Hold one conversation with recorded speech, and record it."),
    "batch": ("batch", "Hold a conversation with each of many recordings, and write a table."),
    "new": ("new", "Write a small project: an agent with a tool, a test, a Containerfile."),
    "ray": ("ray", "Serve calls on several machines, by Ray Serve."),
    "models": ("weights", "Weights of the built-in engine: list, fetch, verify, prune."),
    "simulate": ("simulate", "Simulate a provider's service on this machine."),
    "view": ("view", "Show recorded calls: voices, words, tools, latencies."),
    "explain": ("view", "Say what was unusual in a recorded call, and why."),
    "replay": ("replay", "Run recorded calls again without their provider; show differences."),
    "doctor": ("doctor", "Report what is installed and what is missing, with the fix."),
}


class _Commands(click.Group):
    """Loads commands when they are needed, and prints errors of this library as one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = import_module(f"duologue.cli.{_COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # Don't load any command, so that --help is quick.
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> object:
        from duologue.errors import ConfigError, DuologueError, MissingExtraError

        try:
            return super().invoke(ctx)
        except (ConfigError, MissingExtraError) as error:
            _fail(str(error), 2)
        except DuologueError as error:
            _fail(str(error), 1)
        except KeyboardInterrupt:
            click.echo("", err=True)
            sys.exit(130)


def _fail(text: str, code: int) -> NoReturn:
    click.echo(f"duologue: {' '.join(text.split())}", err=True)
    sys.exit(code)


_CHATTY_LOGGERS = ("aioice", "aiortc", "httpcore", "httpcore2", "httpx", "httpx2")
"""Loggers of libraries that are at INFO with -vv only."""


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="duologue", message="%(prog)s %(version)s")
@click.option(
    "-v",
    "--verbose",
    count=True,
    help="Log to stderr what happens to sessions; -vv also the types of messages.",
)
@click.option(
    "--loop",
    type=click.Choice(["auto", "asyncio", "uvloop"]),
    default="auto",
    show_default=True,
    help="Event loop; auto is uvloop where it is installed.",
)
def main(verbose: int, loop: str) -> None:
    """Talk with a model by voice; no key and no account needed.

    The built-in engine runs on this machine. Its weights are fetched at first use (254 MB for the
    profile tiny, 640 MB for small). Begin with: duologue demo
    """
    del loop  # for `options.run_in_chosen_loop`
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(name)s: %(message)s" if verbose else "%(message)s",
        stream=sys.stderr,
    )
    if verbose == 1:
        # They log lines for each connection and request, with addresses.
        for name in _CHATTY_LOGGERS:
            logging.getLogger(name).setLevel(logging.WARNING)
    if verbose > 1:
        logging.getLogger("duologue").setLevel(logging.DEBUG)
