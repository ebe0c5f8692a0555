"""``duologue simulate nova``."""

from __future__ import annotations

from pathlib import Path

import click

from duologue.cli.simulate.serving import Options, serve, simulator_options, write_certificate


@click.command()
@click.option(
    "--tls",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="CA.pem",
    help="Speak TLS, as the SDK's own transport demands, and write the certificate to trust "
    "to this file.",
)
@simulator_options(clock_scale_help="Streams end after eight minutes divided by this.")
def nova(options: Options, tls: Path | None) -> None:
    """Amazon Nova Sonic as Bedrock serves it, over HTTP/2, until Ctrl-C.

    A --key is ACCESS_KEY:SECRET_KEY.

    \b
    duologue simulate nova --backend local
    duologue simulate nova --tls ca.pem --faults unstable
    """
    from duologue.errors import ConfigError
    from duologue.simulators.faults import load_faults
    from duologue.simulators.nova.faults import PRESETS
    from duologue.simulators.nova.server import ACCESS_KEY, SECRET_KEY, NovaSimulator

    access_key, colon, secret_key = (options.key or f"{ACCESS_KEY}:{SECRET_KEY}").partition(":")
    if not (access_key and colon and secret_key):
        raise ConfigError("--key must be ACCESS_KEY:SECRET_KEY")
    simulator = NovaSimulator(
        options.backend,
        host=options.host,
        port=options.port,
        tls=tls is not None,
        access_key=access_key,
        secret_key=secret_key,
        faults=[fault for name in options.faults for fault in load_faults(name, PRESETS)],
        profile=options.profile,
        clock_scale=options.clock_scale,
    )
    if tls is not None:
        write_certificate(tls, simulator.ca_pem or b"")
    shown = "..." if options.key else secret_key
    trust = "" if tls is None else f" AWS_CA_BUNDLE={tls}"
    serve(
        simulator,
        options,
        lambda: [
            f"base_url      {simulator.url}",
            f"region        {simulator.credentials.region}",
            (
                f"AWS_ENDPOINT_URL_BEDROCK_RUNTIME={simulator.url} "
                f"AWS_REGION={simulator.credentials.region} "
                f"AWS_ACCESS_KEY_ID={access_key} AWS_SECRET_ACCESS_KEY={shown}{trust}"
            ),
        ],
    )
