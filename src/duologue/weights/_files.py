"""Files in the cache of weights: locks between processes, hashes, and signs of a change."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from duologue._optional import import_optional
from duologue.weights._errors import WeightsError

logger = logging.getLogger(__name__)


class UnwritableError(WeightsError):
    """The cache can't be written; ``reason`` says why."""

    def __init__(self, root: Path, error: OSError | NotImplementedError) -> None:
        reason = error.strerror if isinstance(error, OSError) else None
        self.reason = (reason or "not possible").lower()
        super().__init__(f"can't write to the cache {root}: {self.reason}; set DUOLOGUE_CACHE")


@contextmanager
def locked(root: Path, name: str) -> Iterator[None]:
    """Hold the lock that processes share for ``name`` in the cache ``root``.

    Raises:
        UnwritableError: The cache can't be written.
    """
    filelock = import_optional("filelock", "local")
    locks = root / "locks"
    try:
        locks.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(locks / f"{name}.lock")
        try:
            lock.acquire(timeout=0.05)
        except filelock.Timeout:
            logger.info("%s is being fetched by another process; waiting for it", name)
            lock.acquire()
    except (OSError, NotImplementedError) as error:  # some network drives have no locks
        raise UnwritableError(root, error) from error
    try:
        yield
    finally:
        lock.release()


def stamp_of(path: Path) -> tuple[int, int]:
    """Return the size in bytes and the time of the last change in ns, to detect changes."""
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
