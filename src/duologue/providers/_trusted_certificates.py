"""The system's trusted certificates, which all HTTP clients of a process share."""

from __future__ import annotations

import asyncio
import os
import ssl
import threading
from collections.abc import Callable

from duologue._bounded_dict import BoundedDict

type _Source = tuple[Callable[[], ssl.SSLContext], str | None, str | None]

_lock = threading.Lock()
_loaded: BoundedDict[_Source, ssl.SSLContext] = BoundedDict(4)


async def trusted_certificates(create: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
    """Return what ``create`` returns, which is called once a process, in a thread.

    Parsing the certificates takes over 20 ms of CPU, as much as a conversation of some seconds. So
    the clients of many conversations share them, until ``SSL_CERT_FILE`` or ``SSL_CERT_DIR`` names
    others.

    Args:
        create: ``create_ssl_context`` of an HTTP library, which reads these variables.
    """
    source = (create, os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
    context = _loaded.get(source)
    return await asyncio.to_thread(_load, source) if context is None else context


def _load(source: _Source) -> ssl.SSLContext:
    with _lock:  # Conversations that begin at the same time wait for the first of them.
        context = _loaded.get(source)
        if context is None:
            context = _loaded[source] = source[0]()
        return context
