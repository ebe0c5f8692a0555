"""Check addresses, headers and proxies, and make the errors of networked services.

Each error is one line that says what to write, or has the service's own words.
"""

from __future__ import annotations

import ipaddress
import re
import ssl
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from urllib.parse import SplitResult, urlsplit, urlunsplit

from duologue.errors import ConfigError, ErrorKind, SessionError

LOOPBACK_NAMES = ("127.0.0.1", "::1", "localhost")
"""The usual names of this machine."""

MAX_MESSAGE_CHARS = 500
"""Most characters of a service's message in an error."""
CLIENT_FAULT_CLOSE_CODES = frozenset({1002, 1003, 1007, 1008, 1009, 1010})
"""WebSocket close codes that blame the client; all others blame the network or the server."""

_FATAL_STATUS = frozenset({400, 401, 402, 403, 404})
_RETRY_STATUS = frozenset({408, 409, 425, 429})

_PROXY_SCHEMES = ("http", "https", "socks5", "socks5h")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def is_loopback(host: str) -> bool:
    """Return whether a name or address (without port) is this machine's own loopback."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def split_address(name: str, value: object, schemes: Sequence[str], example: str) -> SplitResult:
    """Return the parts of a service's address.

    Raises `ConfigError` for another scheme, a missing host, an invalid port, and for spaces and
    control characters. The error never shows a user name or password.
    """
    if isinstance(value, str):
        address = _split(value)
        clean = value.isprintable() and " " not in value
        if address is not None and clean and address.scheme in schemes and address.hostname:
            return address
        shown = repr(without_password(value))
    else:
        shown = type(value).__name__
    raise ConfigError(f"{name} must be an address such as {example}, not {shown}")


def check_headers(name: str, headers: Mapping[str, str] | None) -> dict[str, str]:
    """Return a copy of ``headers``. Raise `ConfigError`, which never shows a value."""
    if headers is not None and not isinstance(headers, Mapping):
        raise ConfigError(f"{name} must be a mapping, not a {type(headers).__name__}")
    checked = dict(headers or {})
    for key, value in checked.items():
        if not isinstance(key, str) or not _HEADER_NAME.fullmatch(key):
            raise ConfigError(f"{name} must have names of HTTP headers, not {key!r}")
        if not isinstance(value, str):
            raise ConfigError(
                f"{name} must have strings as values: {key} is a {type(value).__name__}"
            )
        if not (value.isascii() and value.isprintable()):
            raise ConfigError(f"{name} must have values of printable ASCII: that of {key} is not")
    return checked


def check_secret(name: str, value: object) -> str:
    """Return a key without the line end that files have; raise `ConfigError` for what is no key.

    It goes into a header, so it must be printable ASCII: HTTP clients show the whole header in
    their errors when it is not. The error never shows the key.
    """
    if not isinstance(value, str):
        raise ConfigError(f"{name} must be a string, not {type(value).__name__}")
    value = value.strip()
    if not (value.isascii() and all(letter.isprintable() and letter != " " for letter in value)):
        raise ConfigError(f"{name} must be printable ASCII without spaces")
    return value


def redirect_error(host: str, status: int, location: str) -> SessionError:
    """Return the error for a redirect.

    Redirects are never followed, because the key would be sent along.
    """
    where = urlsplit_or_none(location)
    target = ""
    if where is not None and where.hostname:
        shown = where._replace(netloc=where.netloc.rpartition("@")[2], query="", fragment="")
        target = f" to {urlunsplit(shown)[:200]}"
    message = (
        f"{host} redirects{target} (HTTP {status}), which is not followed: give the final address"
    )
    return SessionError(message, code=str(status), kind=ErrorKind.FATAL)


def unix_time(dates: Sequence[str]) -> float | None:
    """Return the Unix seconds of the first ``Date`` header; None if it is missing or invalid."""
    from email.utils import parsedate_to_datetime

    try:
        return parsedate_to_datetime(dates[0]).timestamp()
    except (IndexError, ValueError, OverflowError):
        return None


def proxy_from_environment(scheme: str, host: str) -> str | None:
    """Return the proxy that the environment names for ``scheme`` (``HTTPS_PROXY``), if any."""
    from urllib.request import getproxies, proxy_bypass  # takes 10 ms

    if is_loopback(host) or proxy_bypass(host):
        return None
    proxies = getproxies()
    return proxies.get(scheme) or proxies.get("all")


def check_route(
    proxy: str | None, ssl_context: ssl.SSLContext | None, *, socks: bool = True
) -> None:
    """Check the options that say how a server is reached.

    Args:
        proxy: Address of a proxy; None uses that of the environment.
        ssl_context: Trusted certificates and our own; None uses the system's.
        socks: Whether the proxy may be one for SOCKS 5.

    Raises:
        ConfigError: One of them is invalid.
    """
    if proxy is not None:
        schemes = _PROXY_SCHEMES if socks else ("http", "https")
        split_address("proxy", proxy, schemes, "http://proxy.example:3128")
    if ssl_context is not None and not isinstance(ssl_context, ssl.SSLContext):
        raise ConfigError(
            f"ssl_context must be an ssl.SSLContext, not {type(ssl_context).__name__}"
        )


def check_proxies() -> None:
    """Raise `SessionError` if the environment names a proxy that HTTP clients here can't use.

    Those clients read all proxies, whatever address they connect to, and their errors do not say
    which variable is wrong.
    """
    from urllib.request import getproxies  # takes 10 ms

    for name, value in getproxies().items():
        if name not in ("http", "https", "all"):
            continue
        address = value if "://" in value else f"http://{value}"
        try:
            proxy = split_address(name, address, _PROXY_SCHEMES, "http://host:port")
        except ConfigError:
            raise proxy_error(f"{without_password(value)} is not the address of a proxy") from None
        if proxy.scheme.startswith("socks") and find_spec("socksio") is None:
            raise proxy_error("SOCKS needs the package socksio (pip install 'httpx[socks]')")


def proxy_error(reason: str, *, given: bool = False) -> SessionError:
    """Return the error for a proxy that can't be used; ``reason`` must show no password.

    ``given``: the program named the proxy, not the environment.
    """
    which, where = "the proxy of the environment", " in HTTP_PROXY, HTTPS_PROXY or ALL_PROXY"
    if given:
        which, where = "proxy", ""
    message = f"{which} can't be used: {reason}. Write it as http://host:port{where}"
    return SessionError(message, code="proxy", kind=ErrorKind.FATAL)


def without_password(address: str) -> str:
    """Return the address without its user name and password, for errors and logs."""
    scheme, slashes, rest = address.rpartition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{slashes}{host.rpartition('@')[2]}{slash}{path}"


def extend_path(url: str, path: str, query: str = "") -> str:
    """Return ``url`` with ``path`` after its own path, and ``query`` after its own query."""
    base = urlsplit(url)
    query = "&".join(filter(None, (base.query, query)))
    return urlunsplit((base.scheme, base.netloc, base.path.rstrip("/") + path, query, ""))


def urlsplit_or_none(value: str) -> SplitResult | None:
    """Return the parts of a URL; None if it is invalid."""
    try:
        return urlsplit(value)
    except ValueError:
        return None


def hostname_of(url: str) -> str:
    """Return the host of a URL; empty if it has none or is invalid."""
    address = urlsplit_or_none(url)
    return "" if address is None else address.hostname or ""


def host_and_port_of(url: str) -> str:
    """Return the host of a URL, with the port where the URL has one; empty if it is invalid."""
    address = urlsplit_or_none(url)
    if address is None or not address.hostname:
        return ""
    host = f"[{address.hostname}]" if ":" in address.hostname else address.hostname
    return host if address.port is None else f"{host}:{address.port}"


def one_line(text: str) -> str:
    """Return a service's message on one line, shortened if it is long."""
    return " ".join(text.split())[:MAX_MESSAGE_CHARS]


def http_status_text(status: int) -> str:
    """Return the error text for an HTTP response without a message of its own."""
    return f"the server answered with HTTP {status}"


def http_status_kind(status: int) -> ErrorKind:
    """Return the kind of an HTTP error by its status alone."""
    if status in _FATAL_STATUS:
        return ErrorKind.FATAL
    if status in _RETRY_STATUS or status >= 500:
        return ErrorKind.RETRY
    return ErrorKind.UNKNOWN


def closed_error(code: int, reason: str, kind: ErrorKind) -> SessionError:
    """Return the error of a closed WebSocket, in the server's own words if it gave any."""
    text = one_line(reason) or "the server closed the connection"
    return SessionError(f"{text} (close code {code})", code=str(code), kind=kind)


def _split(value: str) -> SplitResult | None:
    try:
        address = urlsplit(value)
        usable = address.port is None or address.port > 0
        # A name that can't be encoded would fail only when connecting, with a UnicodeError.
        (address.hostname or "").encode("idna")
    except ValueError:
        return None
    return address if usable else None
