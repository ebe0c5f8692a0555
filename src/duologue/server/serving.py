"""Run the web app on uvicorn until it is cancelled or a signal stops it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from types import FrameType

import uvicorn

from duologue.errors import ConfigError
from duologue.server._acceptor import Acceptor
from duologue.server._connection_limits import REQUEST_S, ConnectionLimiter, limit_connections
from duologue.server._supervisor import Supervisor
from duologue.server._worker import (
    RELAY,
    OtherWorkers,
    WorkerPlace,
    receive_connections,
    worker_place,
)
from duologue.server.app import CallApp
from duologue.server.config import ServerConfig

_STOP_S = 3
"""Seconds in which all sessions must end when the server stops."""

_BACKLOG = 128
"""Connections that the system queues until they are accepted."""


def print_line(text: str) -> None:
    """Print a line for the person at the terminal."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


async def serve_app(
    app: CallApp,
    config: ServerConfig,
    *,
    ready: Callable[[str], None] | None = None,
    signals: bool = True,
    listener: socket.socket | None = None,
) -> None:
    """Serve an app of this package until cancelled or stopped by a signal.

    SIGTERM drains: the port is closed at once, ``/ready`` says no, and calls continue until they
    end, for ``config.drain_s`` at most; then this function returns. A second signal, SIGINT, and
    cancellation end all sessions within about three seconds.

    With several workers (``config.workers``), this process only accepts connections, and starts its
    own program again for each worker, where this function serves the calls.

    Args:
        app: The app, from `create_call_app`.
        config: The configuration of the app.
        ready: Called once with the address to open; by default the address is printed.
        signals: Drain on SIGTERM, stop on SIGINT.
        listener: A listening socket (see `listen`), which is closed at the end.

    Raises:
        ConfigError: The port is taken, the certificate can't be used, or no worker could start.
    """
    place = worker_place()
    if place is not None and config.worker_count > 1:
        await _serve_as_worker(app, config, place)
        return
    listener = listen(config) if listener is None else listener
    port = int(listener.getsockname()[1])

    def announce() -> None:
        _announce_address(config, port, ready)

    if config.worker_count > 1:
        _uvicorn_config(app, config)  # A certificate that can't be used is one error.
        supervisor = Supervisor(config, config.worker_count, listener, on_ready=announce)
        await supervisor.run(signals=signals)
        return
    settings = _uvicorn_config(app, config)
    limiter = ConnectionLimiter()
    limit_connections(settings, limiter)
    app.calls.call_admitted = limiter.exempt
    server = _Server(settings, app, lambda: _announce_address(config, port, ready), signals=signals)
    with listener:
        async with asyncio.TaskGroup() as tasks:
            serving = tasks.create_task(server.serve(sockets=[listener]), name="server")
            try:
                await asyncio.wait({serving})
            except asyncio.CancelledError:
                server.should_exit = True
                await asyncio.wait({serving}, timeout=_STOP_S + 2)
                raise


async def _serve_as_worker(app: CallApp, config: ServerConfig, place: WorkerPlace) -> None:
    """Serve the connections that the supervisor hands over, until it or a signal ends this."""
    settings = _uvicorn_config(app, config)
    limiter = ConnectionLimiter()
    limit_connections(settings, limiter)
    app.calls.call_admitted = limiter.exempt
    channel = socket.socket(fileno=place.connections)
    channel.setblocking(False)
    control = socket.socket(fileno=place.control)
    control.setblocking(False)

    def stop() -> None:
        server.should_exit = True

    def started() -> None:
        asyncio.get_running_loop().add_reader(channel, receive)
        others.link.tell({"ready": True})

    def receive() -> None:
        connections = receive_connections(channel)
        if connections is None:
            asyncio.get_running_loop().remove_reader(channel)
            server.begin_drain()
            return
        for kind, connection in connections:
            if kind == RELAY:
                server.adopt_relay(connection)
            else:
                others.received += 1
                server.adopt(connection)

    server = _Server(
        settings,
        app,
        started,
        signals=True,
        on_tick=lambda: others.report(len(server.server_state.connections)),
        on_drain=lambda: others.link.tell({"draining": True}),
    )
    others = OtherWorkers(
        place,
        app.calls,
        channel,
        on_drain=server.begin_drain,
        on_stop=stop,
        metrics=app.api.render_own_metrics,
    )
    app.calls.shared = others

    async def follow_supervisor() -> None:
        await others.link.run()
        server.begin_drain()

    with channel:
        await others.link.open(control)
        async with asyncio.TaskGroup() as tasks:
            following = tasks.create_task(follow_supervisor(), name="supervisor")
            await server.serve(sockets=[])
            asyncio.get_running_loop().remove_reader(channel)
            following.cancel()


class _Server(uvicorn.Server):
    """uvicorn's server, which drains.

    uvicorn closes every WebSocket as soon as it gets a signal. So the first SIGTERM does not reach
    it: the listener is closed here, and uvicorn exits once the calls have ended.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        app: CallApp,
        on_started: Callable[[], None],
        *,
        signals: bool,
        on_tick: Callable[[], None] = lambda: None,
        on_drain: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(config)
        self._on_tick = on_tick
        self._on_drain = on_drain
        self._app = app
        self._on_started = on_started
        self._signals = signals
        self._acceptors: list[Acceptor] = []
        self._handshakes: set[asyncio.Task[None]] = set()
        self._draining: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen and report the address; unlike uvicorn, limit the time of TLS handshakes."""
        await self.lifespan.startup()
        self.servers = []  # uvicorn would close what is in it; acceptors are closed here
        self._acceptors = [Acceptor(listener, self.adopt) for listener in sockets or []]
        for acceptor in self._acceptors:
            acceptor.start()
        self.started = True
        self._on_started()

    async def main_loop(self) -> None:
        """Run until the server must exit; then end the drain, if there is one."""
        try:
            await super().main_loop()
        finally:
            ending = [*self._handshakes, *([self._draining] if self._draining is not None else [])]
            for task in ending:
                task.cancel()
            if ending:
                await asyncio.wait(ending, timeout=1)

    async def on_tick(self, counter: int) -> bool:
        """Do what uvicorn does ten times a second, and what a worker does."""
        self._on_tick()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the listeners, and all connections."""
        for acceptor in self._acceptors:
            acceptor.close()
        self._app.calls.stop()
        await super().shutdown(sockets)

    def begin_drain(self) -> None:
        """Close the listeners, let calls end, and exit."""
        if self._draining is None and self.started:
            self._draining = asyncio.get_running_loop().create_task(self._drain(), name="drain")

    async def _drain(self) -> None:
        self._app.calls.draining = True
        self._on_drain()
        for acceptor in self._acceptors:
            acceptor.close()
        await self._app.drain()
        self.should_exit = True

    def adopt(self, connection: socket.socket) -> None:
        """Serve a connection that has been accepted."""
        task = asyncio.get_running_loop().create_task(self._adopt(connection), name="connection")
        self._handshakes.add(task)
        task.add_done_callback(self._handshakes.discard)

    def adopt_relay(self, channel: socket.socket) -> None:
        """Let a page whose connection another worker has take up its call here."""
        task = asyncio.get_running_loop().create_task(
            self._app.calls.serve_relayed(channel), name="relay"
        )
        self._handshakes.add(task)
        task.add_done_callback(self._handshakes.discard)

    async def _adopt(self, connection: socket.socket) -> None:
        config = self.config
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._new_connection,
                connection,
                ssl=config.ssl,
                ssl_handshake_timeout=REQUEST_S if config.ssl is not None else None,
            )
        except OSError:
            connection.close()  # It has ended, or does not speak TLS.
        except BaseException:
            connection.close()
            raise

    def _new_connection(self) -> asyncio.Protocol:
        protocol: Callable[..., asyncio.Protocol] = self.config.http_protocol_class
        return protocol(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain at the first SIGTERM; let uvicorn end at once at any other signal."""
        if sig == signal.SIGTERM and self._app.config.drain_s and not self._app.calls.draining:
            self._app.calls.draining = True
            self._loop.call_soon_threadsafe(self.begin_drain)
            return
        super().handle_exit(sig, frame)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave signals to the program that embeds the server, if it wants them."""
        self._loop = asyncio.get_running_loop()
        if not self._signals:
            yield
            return
        # `duologue.run` would cancel the server, besides the handler that uvicorn sets.
        with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):
            self._loop.remove_signal_handler(signal.SIGTERM)
        with super().capture_signals():
            yield


def _announce_address(config: ServerConfig, port: int, ready: Callable[[str], None] | None) -> None:
    address = config.address(port)
    if ready is not None:
        ready(address)
        return
    print_line(f"Talk at {address}")
    if config.warning:
        print_line(f"Note: {config.warning}")


def listen(config: ServerConfig, *, extra_ports: int = 0) -> socket.socket:
    """Listen on the port at once; connections wait until they are served.

    Args:
        config: Address, port and certificate.
        extra_ports: Ports after the first one to try if it is taken.

    Raises:
        ConfigError: No port is free, or the certificate can't be used.
    """
    if config.certfile is not None and config.keyfile is not None:
        _check_certificate(config.certfile, config.keyfile)
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    # Python would take connections of IPv6 only.
    both = config.host == "::" and socket.has_dualstack_ipv6()
    last = min(config.port + extra_ports, 65535) if config.port else 0
    for port in range(config.port, last + 1):
        try:
            if port and extra_ports and config.local:
                _check_both_loopbacks(port)
            return socket.create_server(
                (config.host, port), family=family, backlog=_BACKLOG, dualstack_ipv6=both
            )
        except OSError as error:
            if error.errno != errno.EADDRINUSE or port == last:
                reason = (error.strerror or str(error)).partition(" (while")[0]
                raise ConfigError(
                    f"can't listen on {config.host} port {port} ({reason}): "
                    "choose another port, or 0 for a free one"
                ) from error
    raise AssertionError("the loop above returns or raises")


def _check_both_loopbacks(port: int) -> None:
    """Raise ``OSError`` if another program has the port, because "localhost" has two addresses."""
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        try:
            socket.create_server((address, port), family=family).close()
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise  # but ignore a machine without IPv6


def _check_certificate(certfile: str | Path, keyfile: str | Path) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certfile, keyfile)
    except OSError as error:
        raise ConfigError(f"the certificate or its key can't be used: {error}") from error


def _uvicorn_config(app: CallApp, config: ServerConfig) -> uvicorn.Config:
    """Configure uvicorn without an access log (it would keep addresses), and with limits."""
    settings = uvicorn.Config(
        app,
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws_max_size=config.max_message_bytes,
        ws_ping_interval=config.ping_s,
        ws_ping_timeout=config.ping_s,
        ws_per_message_deflate=False,
        # No limit_concurrency, which would refuse all new connections; the limiter closes old ones.
        backlog=_BACKLOG,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=_STOP_S,
        ssl_certfile=config.certfile,
        ssl_keyfile=config.keyfile,
        lifespan="off",
        http="h11",
    )
    try:
        settings.load()
    except OSError as error:
        raise ConfigError(f"the certificate or its key can't be used: {error}") from error
    return settings
