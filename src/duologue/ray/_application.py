"""The Ray Serve application, and what each of its replicas runs."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import fields, replace
from importlib import import_module
from ipaddress import ip_address
from typing import TYPE_CHECKING, cast

from duologue._optional import optional
from duologue.errors import ConfigError
from duologue.hosting import MakeAgent, create_app
from duologue.json_types import Json
from duologue.ray._call_clock import CallClock, End, Warn
from duologue.ray._tickets import RayTickets
from duologue.ray.scaling import Scaling
from duologue.server.app import CallApp
from duologue.server.call_socket import RESTARTING
from duologue.server.calls import MAX_WAITING, warn_of_end
from duologue.server.config import ServerConfig
from duologue.stores import ConversationStores, open_stores

with optional("ray"):
    import ray
    from ray import serve
    from ray.serve import metrics

if TYPE_CHECKING:
    from ray.serve import Application

log = logging.getLogger(__name__)

type MakeApp = Callable[[ServerConfig], CallApp]
"""Makes the ASGI app of one replica, in the replica: with telephones, metrics, a store."""

SPARE_REQUESTS = MAX_WAITING + 32
"""Requests that Serve sends to a replica besides its calls: sockets that have not said hello, which
the replica limits itself, and short ones. Serve lets a request wait without an answer when a
replica has all that it may have, so this app must be the first to refuse."""

KILL_AFTER_S = 60.0
"""Seconds after the longest call at which Serve kills a replica that it stops."""

PUBLIC_ADDRESSES = "DUOLOGUE_PUBLIC_ADDRESSES"
"""Environment variable of a node: addresses by which it is reached from outside, with commas."""

TOKEN = "DUOLOGUE_TOKEN"  # noqa: S105 - the name of a variable
"""Environment variable of a node: the token that a page must send."""

STORE = "DUOLOGUE_STORE"
"""Environment variable of a node: where conversations are kept."""

_HARD_STOP = "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S"

_CHECK_S = 0.5
"""Seconds between two checks of the running calls."""


def application(
    make_agent: MakeAgent | str | None = None,
    config: ServerConfig | Callable[[], ServerConfig] | None = None,
    *,
    make_app: MakeApp | str | None = None,
    scaling: Scaling | None = None,
    store: str | None = None,
    actor_options: Mapping[str, object] | None = None,
) -> Application:
    """Return a Ray Serve application in which each caller talks with an agent of their own.

    Its ASGI app is that of `duologue.hosting.create_app`, so its routes and its page are the same.

    Args:
        make_agent: Gets the edge of a call and returns the `Agent` that joins it; or its import
            path, such as ``"app:make_agent"``. A function is pickled, so keep it in a module that
            every node can import.
        config: Addresses and limits; a function is called in each replica, for example to read a
            token. By default only callers at the machine of the proxy are served. Name the ``host``
            of Serve's proxies, so that a token is demanded where other machines reach them; their
            port and certificates are Serve's, and ``max_sessions`` is that of ``scaling``.
        make_app: Used in place of ``make_agent``: makes the whole ASGI app, in the replica.
        scaling: Number of replicas, and of their calls.
        store: Where the conversations of agents are kept that have no store of their own, as
            `duologue.stores.open_stores` names it; by default ``DUOLOGUE_STORE`` of the node. Every
            node must reach it. Not for ``make_app``, which brings its own.
        actor_options: Further ``ray_actor_options`` of Serve, such as ``runtime_env``.

    Raises:
        ConfigError: Neither or both of ``make_agent`` and ``make_app`` are given.
    """
    if (make_agent is None) == (make_app is None):
        raise ConfigError("pass make_agent or make_app: one of the two")
    scaling = scaling or Scaling()
    bound: Application = _deployment(scaling, actor_options or {}).bind(
        make_agent, make_app, config or ServerConfig(), scaling, store
    )
    return bound


def build(args: Mapping[str, Json]) -> Application:
    """Build the application from JSON, for the configuration files of Serve.

    In such a file: ``import_path: duologue.ray:build``. ``duologue ray deploy`` writes one.

    Args:
        args: ``make_agent`` or ``make_app`` is an import path, ``scaling`` has fields of `Scaling`,
            ``config`` those of `ServerConfig` that are plain values. The token, and a store with a
            password, are read from ``DUOLOGUE_TOKEN`` and ``DUOLOGUE_STORE`` on each node, because
            everyone who sees Ray's dashboard can read the arguments.

    Raises:
        ConfigError: A field is unknown, or can't work.
    """
    unknown = args.keys() - {"make_agent", "make_app", "scaling", "store", "config"}
    if unknown:
        raise ConfigError(f"the application has no argument {min(unknown)!r}")
    settings = dict(cast("Mapping[str, Json]", args.get("config") or {}))
    if "token" in settings:
        raise ConfigError(f"set {TOKEN} on the nodes: anyone can read the arguments")
    scaling = Scaling(
        **_checked("scaling", args.get("scaling") or {}, Scaling),  # type: ignore[arg-type]
    )
    for key in ("make_agent", "make_app"):
        _load(args.get(key))  # so that one that can't be imported is an error at once
    make_config = _ConfigOfNode(_checked("config", settings, ServerConfig))
    return application(
        cast("str | None", args.get("make_agent")),
        make_config,
        make_app=cast("str | None", args.get("make_app")),
        scaling=scaling,
        store=cast("str | None", args.get("store")),
    )


class _ConfigOfNode:
    """Makes the `ServerConfig` where the token is."""

    def __init__(self, settings: dict[str, object]) -> None:
        self._settings = settings

    def __call__(self) -> ServerConfig:
        return ServerConfig(
            **self._settings,  # type: ignore[arg-type]
            token=os.environ.get(TOKEN) or None,
        )


def _checked(name: str, settings: object, kind: type) -> dict[str, object]:
    """Return settings with tuples in place of lists; raise `ConfigError` for an unknown one."""
    if not isinstance(settings, Mapping):
        raise ConfigError(f"{name} must be a mapping, not {settings!r:.80}")
    known = {field.name for field in fields(kind)}
    for key in settings:
        if key not in known:
            raise ConfigError(f"{name} has no field {key!r}")
    return {
        key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()
    }


def _deployment(scaling: Scaling, actor_options: Mapping[str, object]) -> serve.Deployment:
    # HAProxy routes by itself, and Serve refuses a router of ours then.
    router = {} if _has_haproxy() else {"request_router_class": "duologue.ray._routing:FewestCalls"}
    made = serve.deployment(
        Calls,
        name="Calls",
        max_ongoing_requests=scaling.max_sessions + SPARE_REQUESTS,
        max_queued_requests=SPARE_REQUESTS,
        autoscaling_config={
            "min_replicas": scaling.min_replicas,
            "max_replicas": scaling.max_replicas,
            "target_ongoing_requests": scaling.max_sessions - scaling.spare_sessions,
            "look_back_period_s": scaling.look_back_s,
            "metrics_interval_s": min(1.0, scaling.look_back_s / 2),
            "upscale_delay_s": scaling.upscale_delay_s,
            "downscale_delay_s": scaling.downscale_delay_s,
        },
        ray_actor_options={"num_cpus": scaling.num_cpus, **actor_options},
        request_router_config=router,
        graceful_shutdown_wait_loop_s=0.5,
        graceful_shutdown_timeout_s=scaling.max_call_s + KILL_AFTER_S,
    )
    return cast("serve.Deployment", made)


@serve.ingress()
class Calls:
    """What runs in a replica: the ASGI app, and the clock that ends its calls.

    Args:
        make_agent: See `application`.
        make_app: See `application`.
        config: See `application`.
        scaling: See `application`.
        store: See `application`.
    """

    def __init__(
        self,
        make_agent: MakeAgent | str | None,
        make_app: MakeApp | str | None,
        config: ServerConfig | Callable[[], ServerConfig],
        scaling: Scaling,
        store: str | None,
    ) -> None:
        config = config if isinstance(config, ServerConfig) else config()
        config = replace(
            config,
            max_sessions=scaling.max_sessions,
            workers=1,
            public_addresses=config.public_addresses or public_addresses(),
        )
        _warn_of_haproxy(scaling.max_call_s)
        self._stores: ConversationStores | None = None
        if make_app is not None:
            self._app = cast("MakeApp", _load(make_app))(config)
        else:
            if address := store or os.environ.get(STORE):
                self._stores = open_stores(address)
            made = cast("MakeAgent", _load(make_agent))
            self._app = create_app(made, config, stores=self._stores)
        self._scaling = scaling
        self._clock = CallClock(scaling.max_call_s, scaling.warn_s)
        self._sessions = metrics.Gauge("duologue_sessions_active", "Calls of a replica.")
        self._limit = metrics.Gauge("duologue_sessions_limit", "Most calls of a replica.")
        self._refused = metrics.Counter("duologue_sessions_refused_total", "Refused calls.")
        self._counted = 0
        self._tickets: RayTickets | None = None
        if config.keep_call_s:
            calls = self._app.calls
            self._tickets = RayTickets(scaling.max_call_s, calls.release, calls.shared_tickets)
            calls.shared_tickets = self._tickets
        self._tasks: list[asyncio.Task[None]] = []

    async def __serve_build_asgi_app__(self) -> CallApp:
        """Return the app to Serve, which calls this by its name on the event loop of the calls."""
        if self._stores is not None:
            await self._stores.check()
        self._run(self._watch_calls(), "clock")
        if self._tickets is not None:
            self._run(self._tickets.follow(), "tickets")
        return self._app

    async def reconfigure(self, user_config: Mapping[str, object]) -> None:
        """Drain the replica if Serve says so by ``{"drain_s": 300}``; see `CallApp.drain`."""
        drain_s = user_config.get("drain_s")
        if isinstance(drain_s, int | float):
            self._run(self._app.drain(drain_s), "drain")

    async def __del__(self) -> None:
        """End the tasks; Serve awaits this when all requests have ended."""
        for task in self._tasks:
            task.cancel()
        if self._stores is not None:
            await self._stores.close()

    def _run(self, work: Coroutine[object, object, None], name: str) -> None:
        """Run a task of the replica. There is no block that could hold them in a task group."""
        self._tasks.append(asyncio.get_running_loop().create_task(work, name=name))

    async def _watch_calls(self) -> None:
        """End calls that last too long, and publish how many there are."""
        calls, loop = self._app.calls, asyncio.get_running_loop()
        async with asyncio.TaskGroup() as warnings:
            while True:
                for action in self._clock.check(loop.time(), calls.running):
                    call = calls.running[action.call_id].call
                    match action:
                        case Warn(seconds=seconds):
                            warnings.create_task(warn_of_end(call, seconds))
                        case End():
                            call.end(RESTARTING)
                self._sessions.set(calls.sessions)
                self._limit.set(self._scaling.max_sessions)
                if calls.refused > self._counted:
                    self._refused.inc(calls.refused - self._counted)
                    self._counted = calls.refused
                await asyncio.sleep(_CHECK_S)


def _has_haproxy() -> bool:
    """Return whether Serve runs HAProxy in place of its own proxies, as Serve decides it."""
    return os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") == "1"


def _warn_of_haproxy(max_call_s: float) -> None:
    """Warn if HAProxy, where it is used, ends connections that are younger than the longest call.

    Serve starts it again whenever replicas come or go; the old process keeps its connections for a
    while.
    """
    stop = os.environ.get(_HARD_STOP, "120")
    if _has_haproxy() and int(stop) < max_call_s:
        log.warning(
            "HAProxy ends sockets %s s after a change of replicas: set %s on all nodes above the "
            "longest call, which is %g s",
            stop,
            _HARD_STOP,
            max_call_s,
        )


def public_addresses() -> tuple[str, ...]:
    """Return the addresses by which callers reach this node, besides those of its interfaces.

    They are those of the variable ``DUOLOGUE_PUBLIC_ADDRESSES``; without it the address by which
    Ray knows the node, if no interface has it, as in a container.
    """
    named = os.environ.get(PUBLIC_ADDRESSES, "")
    if named:
        return tuple(filter(None, map(str.strip, named.split(","))))
    address: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    family = socket.AF_INET6 if ip_address(address).version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe, suppress(OSError):
        probe.bind((address, 0))
        return ()
    return (address,)


def _load(what: object) -> object:
    """Import what an import path names; return anything else as it is."""
    if not isinstance(what, str):
        return what
    module, colon, name = what.partition(":")
    if not (module and colon and name):
        raise ConfigError(f"{what!r} must be an import path such as app:make_agent")
    try:
        found: object = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{what} can't be imported on this node: {error}") from error
    if not callable(found):
        raise ConfigError(f"{what} must be a function, not {found!r:.80}")
    return found
