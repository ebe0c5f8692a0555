"""``duologue ray``: deploy an agent on a Ray cluster."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import cast

import click

from duologue.cli.app_path import is_app_path
from duologue.cli.extras import require_extras
from duologue.cli.serve import parse_ports
from duologue.errors import ConfigError
from duologue.json_types import Json, JsonObject


@click.group()
def ray() -> None:
    """Serve calls on a Ray cluster, over several machines."""


@ray.command()
@click.argument("app", metavar="APP")
@click.option(
    "--address",
    metavar="URL",
    help="Ray's dashboard; RAY_DASHBOARD_ADDRESS, or http://127.0.0.1:8265, by default.",
)
@click.option("--name", default="duologue", show_default=True, help="Name of the application.")
@click.option("--route", default="/", show_default=True, help="Route of the page.")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address of Serve's proxies, if Serve is not running yet. Another one needs a token in "
    "DUOLOGUE_TOKEN on every node.",
)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=8000,
    show_default=True,
    help="Port of Serve's proxies, if Serve is not running yet.",
)
@click.option("--max-sessions", type=click.IntRange(1), help="Most calls of a replica; 8.")
@click.option("--spare-sessions", type=click.IntRange(0), help="Places that are kept free; 2.")
@click.option("--min-replicas", type=click.IntRange(1), help="Replicas that always run; 1.")
@click.option("--max-replicas", type=click.IntRange(1), help="Most replicas; 8.")
@click.option("--cpus", "num_cpus", type=click.FloatRange(0), help="Cores of a replica; 1.")
@click.option(
    "--max-call",
    "max_call_s",
    type=click.FloatRange(0),
    metavar="S",
    help="Seconds of the longest call; 3600.",
)
@click.option(
    "--drain",
    type=click.FloatRange(0),
    metavar="S",
    default=300.0,
    show_default=True,
    help="Seconds that calls of the old version may continue.",
)
@click.option(
    "--max-tick-delay",
    type=click.FloatRange(0),
    metavar="MS",
    default=20.0,
    show_default=True,
    help="Refuse another call while a tenth of the 20 ms ticks were this much late; 0 never does.",
)
@click.option("--allow-host", multiple=True, metavar="NAME", help="Another host name of the page.")
@click.option("--public-url", metavar="URL", help="Address of the page behind a proxy.")
@click.option(
    "--trust-proxy",
    multiple=True,
    metavar="ADDRESS",
    help="A proxy, or a network of them, whose X-Forwarded-For names the caller.",
)
@click.option(
    "--udp-ports",
    metavar="A-B",
    callback=parse_ports,
    help="UDP ports of calls on every node, such as 50000-50999; any by default.",
)
@click.option(
    "--runtime-env",
    metavar="JSON|FILE",
    help="Where the replicas find your code, as Ray knows it; not needed if it is installed.",
)
@click.option(
    "--no-wait",
    is_flag=True,
    help="Return before the old version has gone.",
)
def deploy(
    app: str,
    address: str | None,
    name: str,
    route: str,
    host: str,
    port: int,
    drain: float,
    max_tick_delay: float,
    allow_host: tuple[str, ...],
    public_url: str | None,
    trust_proxy: tuple[str, ...],
    udp_ports: tuple[int, int] | None,
    runtime_env: str | None,
    no_wait: bool,
    **scaling: float | None,
) -> None:
    """Start an agent on a Ray cluster, or replace it without cutting a call.

    APP is module:function, as every node can import it: a function of yours that gets the edge of
    a call and returns an Agent.

    The new version starts beside the old one. When it runs it gets the route, and the old one is
    removed when its calls have ended. If it does not start, the old one stays as it is.

    \b
    duologue ray deploy app:make_agent --max-replicas 20 --udp-ports 50000-50999
    """
    require_extras("ray deploy", "ray")
    from duologue.ray import DASHBOARD, connect
    from duologue.ray import deploy as deploy_version

    if not is_app_path(app) or app.partition(":")[0].endswith(".py"):
        raise ConfigError(
            f"name a function as module:function, because every node imports it, not {app!r}"
        )
    config: JsonObject = {"max_tick_delay_ms": max_tick_delay or None}
    if allow_host:
        config["allowed_hosts"] = list(allow_host)
    if public_url is not None:
        config["public_url"] = public_url
    if trust_proxy:
        config["trusted_proxies"] = list(trust_proxy)
    if udp_ports is not None:
        config["udp_ports"] = list(udp_ports)
    api = connect(address or os.environ.get("RAY_DASHBOARD_ADDRESS") or DASHBOARD)
    deployed = deploy_version(
        api,
        {
            "make_agent": app,
            "config": config,
            "scaling": {key: value for key, value in scaling.items() if value is not None},
        },
        name=name,
        route=route,
        host=host,
        port=port,
        runtime_env=_runtime_env(runtime_env),
        drain_s=drain,
        wait=not no_wait,
        report=click.echo,
    )
    click.echo(f"{deployed.name} runs")


def _runtime_env(text: str | None) -> dict[str, Json]:
    """Return the runtime environment, from JSON or a file of JSON."""
    if text is None:
        return {}
    source = text if text.lstrip().startswith("{") else _read(Path(text))
    try:
        found = json.loads(source)
    except ValueError as error:
        raise ConfigError(f"--runtime-env must be JSON, or a file of JSON: {error}") from None
    if not isinstance(found, dict):
        raise ConfigError("--runtime-env must be a JSON object")
    return cast("JsonObject", found)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise ConfigError(f"--runtime-env: {path} can't be read: {error.strerror}") from None
