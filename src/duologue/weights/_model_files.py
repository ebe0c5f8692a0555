"""GGUF files that a user names: a path, or a file of a model hub.

The registry knows nothing of them, so the first use records the SHA-256, and every later use
compares it. What was recorded is in ``ROOT/models/KEY.json``; a file of a hub is kept in
``ROOT/models/KEY/``. A file is only read again after its size or its time has changed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from duologue.errors import ConfigError
from duologue.weights import _hub
from duologue.weights._errors import WeightsError, WrongHashError
from duologue.weights._files import UnwritableError, locked, sha256_of, stamp_of
from duologue.weights._gguf import GgufError, check_chat_model
from duologue.weights._hub import HubFile
from duologue.weights._store import default_root, is_offline

logger = logging.getLogger(__name__)

type ModelSource = HubFile | Path


@dataclass(frozen=True, slots=True)
class ModelFile:
    """What was recorded of a file at its first use.

    Attributes:
        source: ``hf:ORG/REPO/FILE.gguf``, or the absolute path.
        path: Where the file is.
        sha256: Its SHA-256 in hex.
        size: Its bytes.
        mtime_ns: When it was last changed, in ns, the last time that its hash was computed.
    """

    source: str
    path: str
    sha256: str
    size: int
    mtime_ns: int


def parse_source(source: str | Path) -> ModelSource:
    """Return the hub's file, or the absolute path, that ``source`` names.

    Raises:
        ConfigError: It begins with ``hf:`` and is not ``hf:ORG/REPO/FILE.gguf``.
    """
    if isinstance(source, str) and source.startswith(_hub.PREFIX):
        return HubFile.parse(source)
    return Path(source).expanduser().absolute()


class ModelFiles:
    """The files that were used, with their hashes. All methods block, so call them from a thread.

    Args:
        root: The cache folder; by default that of `Store`.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = default_root() if root is None else root

    def ensure(
        self,
        source: str | Path,
        *,
        offline: bool = False,
        progress: bool = True,
        stop: threading.Event | None = None,
    ) -> Path:
        """Return the path of a file whose hash is that of its first use; fetch it if it is missing.

        Args:
            source: ``hf:ORG/REPO/FILE.gguf``, or a path.
            offline: Fetch nothing, as ``DUOLOGUE_OFFLINE=1`` demands.
            progress: Show a bar on a terminal.
            stop: End a download when this is set.

        Raises:
            ConfigError: The name is malformed, or there is no file of that path.
            WrongHashError: The file is not the one that was used first.
            GgufError: The file is no chat model; nothing is recorded or kept.
            WeightsError: The hub does not provide the file.
        """
        where = parse_source(source)
        path = self._path(where)
        if path.is_file():
            return self._checked(where, path)
        if isinstance(where, Path):
            raise ConfigError(
                f"{path} is a folder: name a file in it"
                if path.is_dir()
                else f"there is no file {path}"
            )
        if offline or is_offline():
            raise WeightsError(
                f"{where} is not in the cache {self.root} and fetching is off; run 'duologue "
                f"models fetch {where}' where there is a network"
            )
        with locked(self.root, _key(where)):
            if not path.is_file():
                self._fetch(where, path, progress=progress, stop=stop)
        return self._checked(where, path)

    def recorded(self, source: str | Path) -> ModelFile | None:
        """Return what was recorded of ``source``."""
        return self._read(self._record_path(parse_source(source)))

    def entries(self) -> list[ModelFile]:
        """Return what was recorded of all files, by source."""
        paths = sorted((self.root / "models").glob("*.json"))
        return [found for path in paths if (found := self._read(path)) is not None]

    def verify(self, source: str | Path) -> Literal["ready", "missing", "broken"]:
        """Read the whole file, and compare its hash with the recorded one."""
        where = parse_source(source)
        path, record = self._path(where), self.recorded(source)
        if record is None or not path.is_file():
            return "missing"
        return "ready" if sha256_of(path) == record.sha256 else "broken"

    def forget(self, source: str | Path) -> bool:
        """Delete what was recorded, so that the next use records the hash again.

        Returns:
            Whether anything was recorded.
        """
        where = parse_source(source)
        with locked(self.root, _key(where)):
            record = self._record_path(where)
            known = record.is_file()
            record.unlink(missing_ok=True)
            _checked.pop((str(self.root), str(where)), None)
        return known

    def delete(self, source: str | Path) -> int:
        """Delete a file of a hub and what was recorded of it; return the bytes freed.

        Raises:
            ConfigError: ``source`` is a path: such a file is not the cache's to delete.
        """
        where = parse_source(source)
        if isinstance(where, Path):
            raise ConfigError(
                f"{where} is your own file: delete it yourself, or run 'duologue models forget'"
            )
        self.forget(source)
        folders = (self._path(where).parent, self.root / "partial" / _key(where))
        freed = sum(file.stat().st_size for folder in folders for file in folder.rglob("*"))
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
        return freed

    def _fetch(
        self, file: HubFile, path: Path, *, progress: bool, stop: threading.Event | None
    ) -> None:
        folder = self.root / "partial" / _key(file)
        fetched = _hub.fetch(file, folder, progress=progress, stop=stop)
        found = sha256_of(fetched.path)
        if fetched.announced_sha256 not in (None, found):
            shutil.rmtree(folder, ignore_errors=True)
            raise WrongHashError(
                f"{file} came damaged (SHA-256 {found[:12]}... instead of "
                f"{str(fetched.announced_sha256)[:12]}...); nothing was kept: run it again"
            )
        try:
            check_chat_model(fetched.path, str(file))
        except GgufError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise GgufError(f"{error}; nothing was kept") from None
        record = self._read(self._record_path(file))
        if record is not None and record.sha256 != found:
            shutil.rmtree(folder, ignore_errors=True)
            raise WrongHashError(
                f"{file} is another file on the hub now than at its first use (SHA-256 "
                f"{found[:12]}... instead of {record.sha256[:12]}...); nothing was kept. To accept "
                f"it: 'duologue models forget {file}'; to get the old one name its @REVISION"
            )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            fetched.path.replace(path)
        except OSError as error:
            raise UnwritableError(self.root, error) from error
        shutil.rmtree(folder, ignore_errors=True)
        self._write(file, path, found)

    def _checked(self, where: ModelSource, path: Path) -> Path:
        """Compare the file with what was recorded, or record it."""
        key = (str(self.root), str(where))
        record = self._read(self._record_path(where)) or _checked.get(key)
        if record is not None and (record.size, record.mtime_ns) == stamp_of(path):
            return path
        if record is None and isinstance(where, Path):
            check_chat_model(path)
        found = sha256_of(path)
        if record is not None and record.sha256 != found:
            again = f"; to fetch it again: 'duologue models prune {where}'"
            raise WrongHashError(
                f"{where} has changed since its first use (SHA-256 {found[:12]}... instead of "
                f"{record.sha256[:12]}...). If you changed it: 'duologue models forget {where}'"
                f"{again if isinstance(where, HubFile) else ''}"
            )
        self._write(where, path, found)
        return path

    def _write(self, where: ModelSource, path: Path, sha256: str) -> None:
        record = ModelFile(str(where), str(path), sha256, *stamp_of(path))
        _checked[str(self.root), str(where)] = record
        target = self._record_path(where)
        unfinished = target.with_suffix(".unfinished")
        with _warning_if_unwritable(where):
            target.parent.mkdir(parents=True, exist_ok=True)
            unfinished.write_text(json.dumps(asdict(record)), "utf-8")
            unfinished.replace(target)

    def _path(self, where: ModelSource) -> Path:
        if isinstance(where, Path):
            return where
        return self.root / "models" / where.key / Path(where.file).name

    def _record_path(self, where: ModelSource) -> Path:
        return self.root / "models" / f"{_key(where)}.json"

    @staticmethod
    def _read(path: Path) -> ModelFile | None:
        try:
            return ModelFile(**json.loads(path.read_text("utf-8")))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, TypeError) as error:
            raise WeightsError(
                f"{path} can't be read ({error}): delete it; the next use records the hash again"
            ) from error


@contextmanager
def _warning_if_unwritable(where: ModelSource) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        logger.warning(
            "the hash of %s can't be recorded, so a change of it will not be noticed (%s): "
            "set DUOLOGUE_CACHE to a folder that can be written",
            where,
            error.strerror,
        )


def _key(where: ModelSource) -> str:
    if isinstance(where, HubFile):
        return where.key
    digest = hashlib.sha256(str(where).encode("utf-8", "surrogateescape")).hexdigest()
    return f"{where.stem[:40]}-{digest[:16]}"


_checked: dict[tuple[str, str], ModelFile] = {}
"""What this process has found of files, by cache and source, for caches that can't be written."""
