"""``duologue simulate telnyx``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from duologue.cli.simulate.phone import PhoneOptions, phone_options, run_simulator

if TYPE_CHECKING:
    from duologue.simulators.telephone.service import PhoneSimulator


@click.command()
@phone_options
def telnyx(options: PhoneOptions) -> None:
    """Telnyx: calls to the app at APP_URL, and the REST interface, until Ctrl-C.

    \b
    duologue simulate telnyx --call --say question.wav --out heard.wav
    duologue simulate telnyx https://talk.example.org
    """
    from duologue.simulators.telephone.service import TelnyxSimulator

    run_simulator(TelnyxSimulator, options, "TELNYX_API_KEY", _public_key)


def _public_key(service: PhoneSimulator) -> str:
    """Return the setting with which the app checks webhooks."""
    from duologue.simulators.telephone.service import TelnyxSimulator

    if not isinstance(service, TelnyxSimulator):
        return ""
    return f"TELNYX_PUBLIC_KEY={service.signing_key.public} TELNYX_CONNECTION_ID=1"
