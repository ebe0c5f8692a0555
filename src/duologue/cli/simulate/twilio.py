"""``duologue simulate twilio``."""

from __future__ import annotations

import click

from duologue.cli.simulate.phone import PhoneOptions, phone_options, run_simulator


@click.command()
@phone_options
def twilio(options: PhoneOptions) -> None:
    """Twilio: calls to the app at APP_URL, and the REST interface, until Ctrl-C.

    \b
    duologue simulate twilio --call --say question.wav --out heard.wav
    duologue simulate twilio https://talk.example.org
    """
    from duologue.simulators.telephone.service import TwilioSimulator

    run_simulator(TwilioSimulator, options, "TWILIO_AUTH_TOKEN")
