"""Certificates are read once for all clients, and again when the environment names others."""

import asyncio
import ssl
import threading
import time

from duologue.providers._trusted_certificates import trusted_certificates


class Library:
    """An HTTP library; ``threads`` are those in which certificates were read."""

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []

    def create(self) -> ssl.SSLContext:
        self.threads.append(threading.current_thread())
        time.sleep(0.02)
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


async def test_clients_share_certificates_that_are_read_in_a_thread() -> None:
    create = Library()
    read = create.create
    contexts = await asyncio.gather(*(trusted_certificates(read) for _ in range(5)))
    contexts.append(await trusted_certificates(read))
    assert len(create.threads) == 1
    assert create.threads[0] is not threading.current_thread()
    assert all(context is contexts[0] for context in contexts)


async def test_libraries_do_not_share_certificates() -> None:
    one, other = Library(), Library()
    assert await trusted_certificates(one.create) is not await trusted_certificates(other.create)


async def test_certificates_are_read_again_when_the_environment_names_others(monkeypatch) -> None:
    library = Library()
    before = await trusted_certificates(library.create)
    for variable in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        with monkeypatch.context() as patch:
            patch.setenv(variable, "other")
            assert await trusted_certificates(library.create) is not before
    assert await trusted_certificates(library.create) is before
    assert len(library.threads) == 3
