"""Put a new version beside the old one, switch the route, and remove the old one when it is empty.

`serve.run` would replace the replicas of an application in place. So each version is an application
of its own here: NAME-1, NAME-2 and so on. They are described to Serve in its configuration, by the
REST API of Ray's dashboard, because only that way a route moves without restarting replicas:

    the new one starts at a route that nobody knows
    it runs: it gets the route; the old one loses it, and every replica of it drains
    the old one is deleted: Serve stops each of its replicas when its last call has ended
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

from duologue._optional import optional
from duologue.errors import ConfigError, DuologueError
from duologue.json_types import Json, JsonObject

DASHBOARD = "http://127.0.0.1:8265"
"""Where Ray's dashboard is on the head node."""

IMPORT_PATH = "duologue.ray:build"

_POLL_S = 0.5
_SETTLE_S = 20.0
"""Most seconds to wait until each replica of an old version knows that it drains."""


class DeployError(DuologueError):
    """The new version could not be started; the old one runs as before."""


class ServeApi(Protocol):
    """What is used of the REST API; Ray's ``ServeSubmissionClient`` has it."""

    def get_serve_details(self) -> JsonObject:
        """Return all applications, with their states and configurations."""
        ...

    def deploy_applications(self, config: JsonObject) -> None:
        """Make the applications those of ``config``; delete others that came this way."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A version that runs.

    Args:
        name: Name of its application.
        route: Its route.
        replaced: Names of the applications that had the route before.
    """

    name: str
    route: str
    replaced: tuple[str, ...]


def connect(address: str = DASHBOARD) -> ServeApi:
    """Connect to the REST API of a cluster.

    Raises:
        ConfigError: Nothing answers at the address.
        MissingExtraError: Ray is not installed.
    """
    with optional("ray"):
        from ray.dashboard.modules.serve.sdk import ServeSubmissionClient
    try:
        return cast("ServeApi", ServeSubmissionClient(address))
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"no dashboard of Ray answers at {address}: {reason}") from None


def deploy(
    api: ServeApi,
    args: JsonObject,
    *,
    name: str = "duologue",
    route: str = "/",
    host: str = "127.0.0.1",
    port: int = 8000,
    runtime_env: Mapping[str, Json] | None = None,
    drain_s: float = 300.0,
    start_s: float = 600.0,
    wait: bool = True,
    report: Callable[[str], None] = lambda line: None,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Deployment:
    """Replace the version at a route by another one, without cutting a call.

    Args:
        api: See `connect`.
        args: Arguments of `duologue.ray.build`.
        name: What the names of all versions begin with.
        route: Route of the page.
        host: Address of Serve's proxies, if Serve is not running yet.
        port: Their port.
        runtime_env: Where the replicas find your code, as Ray knows it.
        drain_s: Seconds that calls of the old version may continue. Then they end with close code
            1012, on which the page calls again and gets the new version.
        start_s: Seconds in which the new version must run.
        wait: Return only when the old version has gone.
        report: Called with a line about each step.
        sleep: Waits for a number of seconds.
        clock: Seconds of a monotonic clock.

    Raises:
        ConfigError: Another application has the route.
        DeployError: The new version did not start; it is removed again.
    """
    serve = _Serve(api, host, port)
    old = serve.versions(name, route)
    number = max((_number(name, each) or 0 for each in serve.applications()), default=0) + 1
    new = f"{name}-{number}"
    config = {**serve.options(), **cast("JsonObject", args.get("config") or {})}
    version: JsonObject = {
        "name": new,
        "route_prefix": f"/_starting/{new}" if old else route,
        "import_path": IMPORT_PATH,
        "args": {**args, "config": config},
        "runtime_env": dict(runtime_env or {}),
    }
    report(f"{new} starts")
    serve.put([*serve.configs(), version])
    try:
        _wait_until_running(serve, new, clock() + start_s, sleep, clock)
    except BaseException:
        serve.put([config for config in serve.configs() if config["name"] != new])
        raise
    if old:
        version = {**version, "route_prefix": route}
        serve.put(_switched(serve.configs(), version, old, drain_s))
        deadline = clock() + _SETTLE_S
        while any(serve.status(each) == "DEPLOYING" for each in old) and clock() < deadline:
            sleep(_POLL_S)
    report(f"{new} takes the calls at {route}")
    if old:
        serve.put([config for config in serve.configs() if config["name"] not in old])
    reported = 0
    while wait and any(serve.status(each) is not None for each in old):
        replicas = serve.count_replicas(old)
        if replicas not in (0, reported):
            replica = "1 replica" if replicas == 1 else f"{replicas} replicas"
            report(f"{' and '.join(old)}: {replica} with calls")
            reported = replicas
        sleep(_POLL_S)
    return Deployment(name=new, route=route, replaced=tuple(old))


def _switched(
    configs: Sequence[JsonObject], version: JsonObject, old: Sequence[str], drain_s: float
) -> list[JsonObject]:
    """Return the configurations in which the new version has the route, and the old ones drain."""
    drain: Json = [{"name": "Calls", "user_config": {"drain_s": drain_s}}]
    switched = [
        {**config, "route_prefix": None, "deployments": drain} if config["name"] in old else config
        for config in configs
        if config["name"] != version["name"]
    ]
    return [*switched, version]


def _wait_until_running(
    serve: _Serve,
    name: str,
    deadline: float,
    sleep: Callable[[float], None],
    clock: Callable[[], float],
) -> None:
    while (status := serve.status(name)) != "RUNNING":
        if status in ("DEPLOY_FAILED", "UNHEALTHY", None):
            raise DeployError(f"{name} did not start: {serve.message(name)}")
        if clock() > deadline:
            raise DeployError(
                f"{name} did not start in time: has the cluster room for it? {serve.message(name)}"
            )
        sleep(_POLL_S)


class _Serve:
    """The applications of a cluster."""

    def __init__(self, api: ServeApi, host: str, port: int) -> None:
        self._api = api
        self._options: JsonObject = {"host": host, "port": port}

    def applications(self) -> dict[str, JsonObject]:
        """Return all applications by their names."""
        return cast("dict[str, JsonObject]", self._api.get_serve_details().get("applications", {}))

    def configs(self) -> list[JsonObject]:
        """Return the configurations of those that came by the REST API, and are not deleted."""
        return [
            cast("JsonObject", app["deployed_app_config"])
            for app in self.applications().values()
            if app.get("deployed_app_config") and app.get("status") != "DELETING"
        ]

    def versions(self, name: str, route: str) -> list[str]:
        """Return the versions at a route.

        Raises:
            ConfigError: Another application is there.
        """
        at_route = [
            each
            for each, app in self.applications().items()
            if app.get("route_prefix") == route and app.get("status") != "DELETING"
        ]
        for other in at_route:
            if _number(name, other) is None:
                raise ConfigError(
                    f"the application {other!r} has the route {route}: choose another route, "
                    f"or end it by serve.delete({other!r})"
                )
        return at_route

    def status(self, name: str) -> str | None:
        """Return the status of an application; None if there is none."""
        return cast("str | None", self.applications().get(name, {}).get("status"))

    def message(self, name: str) -> str:
        """Return what went wrong, in a line: the last one of a traceback."""
        app = self.applications().get(name, {})
        deployments = cast("dict[str, JsonObject]", app.get("deployments") or {})
        texts = [app.get("message"), *(each.get("message") for each in deployments.values())]
        lines = [line.strip() for text in texts if text for line in str(text).splitlines()]
        errors = [line for line in lines if "Error: " in line]
        return (errors or lines or ["Serve does not say why"])[-1]

    def count_replicas(self, names: Sequence[str]) -> int:
        """Return how many replicas some applications have, also such that are stopped."""
        apps = self.applications()
        return sum(
            len(cast("list[Json]", deployment.get("replicas") or []))
            for name in names
            for deployment in cast(
                "dict[str, JsonObject]", apps.get(name, {}).get("deployments") or {}
            ).values()
        )

    def put(self, configs: Sequence[JsonObject]) -> None:
        """Make the applications those of the configurations."""
        self._api.deploy_applications(
            {"http_options": self.options(), "applications": list(configs)}
        )

    def options(self) -> JsonObject:
        """Return host and port of the proxies: those that run, or that will be started."""
        running = cast("JsonObject", self._api.get_serve_details().get("http_options") or {})
        options = {key: running[key] for key in self._options if running.get(key) is not None}
        return {**self._options, **options}


def _number(name: str, application: str) -> int | None:
    """Return the number of a version; None if the application is none of them."""
    prefix, dash, number = application.rpartition("-")
    return int(number) if dash and prefix == name and number.isdecimal() else None
