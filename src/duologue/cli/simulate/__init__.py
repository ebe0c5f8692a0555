"""``duologue simulate``: simulate a provider's service on this machine, without a key."""

from __future__ import annotations

from importlib import import_module

import click

_COMMANDS = {
    "openai": "OpenAI's Realtime service, over WebSocket and WebRTC, until Ctrl-C.",
    "gemini": "Google's Gemini Live service, over WebSocket, until Ctrl-C.",
    "qwen": "Alibaba's Qwen Omni realtime service, over WebSocket, until Ctrl-C.",
    "nova": "Amazon Nova Sonic as Bedrock serves it, over HTTP/2, until Ctrl-C.",
    "cartesia": "Cartesia's voices and recogniser, over WebSocket, until Ctrl-C.",
    "deepgram": "Deepgram's voices and recognisers, over WebSocket, until Ctrl-C.",
    "elevenlabs": "ElevenLabs' voices and recogniser, over WebSocket, until Ctrl-C.",
    "twilio": "Twilio: calls to an app with a telephone, and its REST interface.",
    "telnyx": "Telnyx: calls to an app with a telephone, and its REST interface.",
    "plivo": "Plivo: calls to an app with a telephone, and its REST interface.",
    "vonage": "Vonage: calls to an app with a telephone, and its REST interface.",
}
"""Each command is in a module of this package that has its name."""


class _Simulators(click.Group):
    """Loads commands by name when they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"{__name__}.{cmd_name}"), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(cls=_Simulators)
def simulate() -> None:
    """Simulate a provider's service on this machine, for programs that talk to it.

    No key of the provider is needed, and nothing leaves this machine.
    """
