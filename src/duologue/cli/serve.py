"""``duologue serve``: serve the page to talk from."""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from duologue.cli.agent_source import AgentSource, agent_source
from duologue.cli.app_path import AppError, folder_of
from duologue.cli.extras import require_extras
from duologue.cli.observation import Observation, Observers, observation_options, transport_of
from duologue.cli.options import ModelOptions, model_options, run_in_chosen_loop
from duologue.cli.reload import end_with_parent, inherited_listener, serve_reloading
from duologue.cli.sip import SIPOptions, sip_options
from duologue.errors import ConfigError

if TYPE_CHECKING:
    from duologue.agent.agent import Agent
    from duologue.edges.telephone import SIP, Carrier
    from duologue.edges.webrtc import CallEdge
    from duologue.hosting import MakeAgent
    from duologue.rtc.config import IceServer
    from duologue.server import ServerConfig
    from duologue.server.config import IceServersFor
    from duologue.stores import ConversationStores

log = logging.getLogger(__name__)

DEFAULT_PORT = 8000
EXTRA_PORTS = 20
"""Ports after the default one to try if it is taken."""

_FILE = click.Path(path_type=Path, dir_okay=False)


def parse_ports(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> tuple[int, int] | None:
    """Return the first and the last of the ports ``A-B``."""
    if value is None:
        return None
    first, _, last = value.partition("-")
    if not (first.isdecimal() and last.isdecimal()):
        raise click.BadParameter(f"{value!r} is not a range such as 50000-50999", ctx, param)
    return int(first), int(last)


def _ice_servers(turn: tuple[str, ...]) -> IceServersFor | tuple[IceServer, ...]:
    """Return what makes credentials for each call from the secret in the environment."""
    from duologue.errors import ConfigError
    from duologue.rtc.turn import turn_server

    if not turn:
        return ()
    secret = os.environ.get("DUOLOGUE_TURN_SECRET", "")
    if not secret:
        raise ConfigError("--turn needs the secret of the TURN server in DUOLOGUE_TURN_SECRET")
    turn_server(turn, secret)  # An address that can't be used is an error now.
    return lambda request: [turn_server(turn, secret)]


def _count_workers(ctx: click.Context, param: click.Parameter, value: str) -> int | Literal["auto"]:
    if value == "auto":
        return "auto"
    if value.isdecimal() and int(value) > 0:
        return int(value)
    raise click.BadParameter(f"{value!r} is neither auto nor a number above 0", ctx, param)


@click.command()
@click.argument("app", required=False, metavar="[APP]")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="Port to listen on; 0 takes a free one. 8000 by default, or the next that is free.",
)
@click.option(
    "--token",
    metavar="TEXT",
    help="Token that a browser must send to call, 16 characters or more; required if other "
    "machines can reach the address. Better in the environment: DUOLOGUE_TOKEN.",
)
@click.option(
    "--certfile", type=_FILE, help="TLS certificate; browsers need https on other machines."
)
@click.option("--keyfile", type=_FILE, help="Key of the certificate.")
@click.option("--allow-host", multiple=True, metavar="NAME", help="Another host name of the page.")
@click.option(
    "--allow-origin",
    multiple=True,
    metavar="URL",
    help="Another site whose pages may call, such as https://www.example.org.",
)
@click.option(
    "--public-url",
    metavar="URL",
    help="Address of the page if a proxy is in front of it: https://talk.example.org/",
)
@click.option(
    "--telephone",
    "carriers",
    multiple=True,
    type=click.Choice(["twilio", "telnyx", "plivo", "vonage"]),
    help="Take calls of this carrier too, at --public-url; its keys are in the environment.",
)
@click.option(
    "--rtvi",
    is_flag=True,
    help="Take calls of Pipecat's clients (RTVI over SmallWebRTC) too, at /api/offer.",
)
@click.option(
    "--max-sessions",
    type=click.IntRange(1),
    help="Most calls at once; 8 for each core by default.",
)
@click.option(
    "--max-tick-delay",
    type=click.FloatRange(0),
    metavar="MS",
    default=20.0,
    show_default=True,
    help="Refuse another call while a tenth of the 20 ms ticks were this much late; 0 never does.",
)
@click.option(
    "--workers",
    metavar="N|auto",
    default="1",
    show_default=True,
    callback=_count_workers,
    help="Processes that take calls; auto is one for each core.",
)
@click.option(
    "--drain",
    type=click.FloatRange(0),
    metavar="S",
    default=300.0,
    show_default=True,
    help="Seconds that calls may continue after SIGTERM; a second signal ends them at once.",
)
@click.option(
    "--keep-call",
    type=click.FloatRange(0),
    metavar="S",
    default=30.0,
    show_default=True,
    help="Seconds that a call waits for a page that has lost its network; 0 ends it at once.",
)
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
    help="UDP ports of calls, such as 50000-50999; any by default.",
)
@click.option(
    "--public-address",
    multiple=True,
    metavar="IP",
    help="Address by which this machine is reached from outside a network that translates it.",
)
@click.option(
    "--turn",
    multiple=True,
    metavar="URL",
    help="TURN server with the secret of DUOLOGUE_TURN_SECRET: turn:turn.example.org:3478",
)
@click.option(
    "--store",
    metavar="ADDRESS",
    help="Keep the conversations: sqlite:FILE, jsonl:FOLDER or redis://HOST:PORT/DATABASE. An "
    "address with a password belongs in the environment: DUOLOGUE_STORE.",
)
@click.option(
    "--keep",
    type=click.FloatRange(0, min_open=True),
    metavar="DAYS",
    help="Delete a kept conversation that long after its last change; never by default.",
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="json: one object a line, with the id of the call and without words.",
)
@click.option(
    "--reload", is_flag=True, help="Start again when a file of the app changes; for development."
)
@sip_options
@observation_options
@model_options
def serve(
    app: str | None,
    host: str,
    port: int | None,
    token: str | None,
    certfile: Path | None,
    keyfile: Path | None,
    allow_host: tuple[str, ...],
    allow_origin: tuple[str, ...],
    public_url: str | None,
    carriers: tuple[str, ...],
    rtvi: bool,
    max_sessions: int | None,
    max_tick_delay: float,
    workers: int | Literal["auto"],
    drain: float,
    keep_call: float,
    trust_proxy: tuple[str, ...],
    udp_ports: tuple[int, int] | None,
    public_address: tuple[str, ...],
    turn: tuple[str, ...],
    store: str | None,
    keep: float | None,
    log_format: str,
    reload: bool,
    model: ModelOptions,
    observation: Observation,
    sip: SIPOptions,
) -> None:
    """Serve the page to talk from, until Ctrl-C.

    APP is module:function or file.py:function, a function of yours that gets the edge of a call and
    returns an Agent, or a coroutine function that conducts the call. Without it, the options
    describe a model: the built-in engine by default.

    Only this machine reaches the page by default, at http://localhost:8000. A model of a service is
    tried before the address is printed. SIGTERM closes the port at once and lets calls end.

    \b
    duologue serve app:make_agent
    duologue serve app:make_agent --telephone twilio --public-url https://talk.example.org
    duologue serve app:make_agent --sip sip:bot@pbx.example.org --sip-register
    duologue serve --llm openai --voice marin --record calls
    duologue serve --llm anthropic:claude-haiku-4-5 --stt deepgram --tts cartesia:VOICE
    DUOLOGUE_TOKEN=... duologue serve --host 0.0.0.0 --certfile c.pem --keyfile k.pem
    """
    end_with_parent()
    if log_format == "json":
        log_as_json()
    if carriers:
        require_extras("serve --telephone", "browser", "telephone")
    if sip.address is not None:
        require_extras("serve --sip", "browser", "sip")
        if workers != 1:
            raise ConfigError("--sip needs one worker: start several servers, each with its port")
    observation.require_extras("serve")
    if app is not None:
        require_extras("serve", "browser")
    elif reload:
        raise ConfigError("--reload needs a function of yours: duologue serve app:make_agent")
    # With --reload only the child imports the app, because an import that fails must not end this.
    source = None if reload else agent_source(app, model)
    if source is not None:
        require_extras("serve", *source.extras, "browser")
    from duologue.server import ServerConfig, worker_number
    from duologue.server.config import default_sessions

    config = ServerConfig(
        host=host,
        port=DEFAULT_PORT if port is None else port,
        token=token or os.environ.get("DUOLOGUE_TOKEN") or None,
        certfile=certfile,
        keyfile=keyfile,
        allowed_hosts=allow_host,
        allowed_origins=allow_origin,
        public_url=public_url,
        max_sessions=max_sessions or default_sessions(),
        max_tick_delay_ms=max_tick_delay or None,
        workers=workers,
        drain_s=drain,
        keep_call_s=keep_call,
        trusted_proxies=trust_proxy,
        udp_ports=udp_ports,
        public_addresses=public_address,
        ice_servers=_ice_servers(turn),
    )
    stores = _open_stores(store or os.environ.get("DUOLOGUE_STORE") or None, keep)
    make_carriers(carriers, public_url or "http://localhost")  # Report missing keys at once.
    line = sip.make(udp_ports)
    if source is None:
        arguments = [each for each in sys.argv[1:] if each != "--reload"]
        with listen_on_port(config, exact=port is not None) as listening:
            serve_reloading(folder_of(app or ""), listening, arguments)
    listener = None  # A worker gets its connections from the process that started it.
    if worker_number() is None:
        listener = inherited_listener() or listen_on_port(config, exact=port is not None)
    port_taken = config.port if listener is None else int(listener.getsockname()[1])
    telephone: list[Carrier | SIP] = [
        *make_carriers(carriers, public_url or f"http://localhost:{port_taken}")
    ]
    if line is not None:
        telephone.append(line)
    serve_page(
        config,
        listener,
        source,
        source.loading_message,
        telephone,
        observation,
        stores,
        rtvi=rtvi,
    )


def _open_stores(address: str | None, days: float | None) -> ConversationStores | None:
    if address is None:
        if days is not None:
            raise ConfigError("--keep needs --store: where conversations are kept")
        return None
    if address.startswith(("redis:", "rediss:", "unix:")):
        require_extras("serve --store", "redis")
    from duologue.stores import open_stores

    return open_stores(address, keep_s=None if days is None else days * 86400)


def make_carriers(names: Sequence[str], public_url: str) -> list[Carrier]:
    """Return the accounts at carriers, with the keys that are in the environment.

    Raises:
        ConfigError: A key is missing, or the address can't work.
    """
    if not names:
        return []
    from duologue.edges import telephone

    classes = {
        "twilio": telephone.Twilio,
        "telnyx": telephone.Telnyx,
        "plivo": telephone.Plivo,
        "vonage": telephone.Vonage,
    }
    return [classes[name](public_url) for name in dict.fromkeys(names)]


def log_as_json() -> None:
    """Write log records to stderr as JSON, one a line."""
    from duologue.server import JsonLogFormatter

    for handler in logging.getLogger().handlers:
        handler.setFormatter(JsonLogFormatter())


def listen_on_port(config: ServerConfig, *, exact: bool) -> socket.socket:
    """Listen; if the port is taken and not ``exact``, use the next free one and print it.

    Called before anything is loaded.

    Raises:
        ConfigError: No port is free.
    """
    from duologue.server import listen

    listener = listen(config, extra_ports=0 if exact else EXTRA_PORTS)
    port = int(listener.getsockname()[1])
    if config.port not in (0, port):
        click.echo(f"Port {config.port} is taken: using {port}.")
    return listener


def serve_page(
    config: ServerConfig,
    listener: socket.socket | None,
    source: AgentSource,
    loading_message: str = "",
    telephone: Sequence[Carrier | SIP] = (),
    observation: Observation | None = None,
    stores: ConversationStores | None = None,
    *,
    rtvi: bool = False,
) -> None:
    """Prepare the model, so that the first caller need not wait, and serve until Ctrl-C."""
    from duologue.hosting import serve as serve_calls
    from duologue.server import worker_number

    worker = worker_number()

    async def main() -> None:
        if loading_message and worker is None:
            click.echo(loading_message)
        if worker is not None or config.worker_count == 1:
            warning = await source.prepare()
            if warning and worker in (None, 1):
                click.echo(f"Note: {warning}")
        observing = observation or Observation()
        async with AsyncExitStack() as opened:
            observers = opened.enter_context(observing.begin())
            if stores is not None:
                await opened.enter_async_context(stores)
                await stores.check()
            await serve_calls(
                _agent_maker(source, observers),
                config,
                telephone=telephone,
                rtvi=rtvi,
                metrics=observers.metrics,
                stores=stores,
                live=observing.live,
                ready=tell,
                listener=listener,
            )

    def tell(address: str) -> None:
        click.echo(f"Talk at {address} (Ctrl-C ends it)")
        if rtvi:
            click.echo(f"RTVI clients: {address.split('#')[0]}api/offer")
        for line in telephone:
            click.echo(line.invitation)
        if config.warning:
            click.echo(f"Note: {config.warning}")

    try:
        with listener or nullcontext():
            run_in_chosen_loop(main())
    except KeyboardInterrupt:
        click.echo("")


def _agent_maker(source: AgentSource, observers: Observers) -> MakeAgent:
    from duologue.server.call_socket import FAILED, RefusedError

    async def make_agent(edge: CallEdge) -> Agent | None:
        try:
            agent = await source.call(edge)
            if agent is not None:
                observers.attach(agent, transport_of(edge))
            return agent
        except AppError as error:
            log.error("%s", error)
            raise RefusedError(FAILED) from error  # which says no more than that to the caller

    return make_agent
