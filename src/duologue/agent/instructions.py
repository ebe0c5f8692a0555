"""Load an agent's instructions, and include the files that the text mentions as ``@notes.md``."""

from __future__ import annotations

import re
from pathlib import Path

from duologue.errors import ConfigError
from duologue.items import replace_surrogates

MAX_FILE_BYTES = 64 * 1024
"""Bytes that one included file may have."""

MAX_TEXT_CHARS = 256 * 1024
"""Characters that instructions may have, including files."""

# An "@" after a word character is an email address. The suffix has to begin with a letter, so
# neither "@anna" nor "@4.50" is a file. Dots and commas at the end of a sentence are not part of a
# name.
_MENTION = re.compile(
    r"(?<![\w@./\\-])(?P<at>@+)(?P<path>[\w./\\~:-]*\w\.[A-Za-z][A-Za-z0-9]{0,9})(?![\w@])"
)

_TEXT_SUFFIXES = frozenset(
    ("csv", "html", "json", "markdown", "md", "rst", "toml", "txt", "xml", "yaml")
)
"""Suffixes that are hardly ever part of a user name."""


def load_instructions(instructions: str | Path, root: Path | None = None) -> str:
    """Read instructions from a text, or from the file of a `Path`.

    With a ``root`` or a file, each file that the text mentions as ``@path/name.ext`` replaces its
    mention. Paths are relative to ``root`` (default: the folder of the file) and stay inside it,
    also behind symbolic links. Included text is not searched for further mentions; an email address
    is no mention, and ``@@name.ext`` stands for ``@name.ext``. A plain text without a ``root``
    includes nothing, so it may contain text of strangers.

    Args:
        instructions: The text, or the path of its file.
        root: The folder of the mentioned files.

    Raises:
        ConfigError: For a file that is missing, outside of ``root``, not UTF-8 text, or over
            `MAX_FILE_BYTES`; if all of it is over `MAX_TEXT_CHARS`; and for a plain text without a
            ``root`` that mentions a file such as ``@notes.md``.
    """
    if isinstance(instructions, Path):
        path = instructions.expanduser()
        text = _read_file(path, f"the instructions {path}")
        root = path.parent if root is None else root
    elif isinstance(instructions, str):
        text = instructions
    else:
        raise ConfigError(
            f"instructions must be a text or a Path, not {type(instructions).__name__}"
        )
    base = None if root is None else Path(root).resolve()
    loaded = _MENTION.sub(lambda match: _resolve(match, base), text)
    if len(loaded) > MAX_TEXT_CHARS:
        raise ConfigError(
            f"instructions are {len(loaded)} characters with their files, at most {MAX_TEXT_CHARS}"
        )
    return replace_surrogates(loaded)


def escape(text: str) -> str:
    """Escape a stranger's ``text``, so that it includes no file."""
    return _MENTION.sub(lambda match: f"@{match[0]}", text)


def _resolve(match: re.Match[str], base: Path | None) -> str:
    name = match["path"]
    if match["at"] != "@":
        return match[0][1:]
    if base is not None:
        return _read_mentioned(name, base)
    if name.rpartition(".")[2].lower() in _TEXT_SUFFIXES:
        raise ConfigError(
            f"instructions mention @{name}: pass root=... to include that file, "
            f"or write @@{name} if it is not a file"
        )
    return match[0]


def _read_mentioned(name: str, base: Path) -> str:
    """Return the text of a mentioned file."""
    problem = f"instructions cannot include @{name}"
    path = Path(name)
    if path.is_absolute() or name.startswith("~") or ".." in path.parts or "\\" in name:
        raise ConfigError(f"{problem}: use a path inside of root")
    try:
        real = (base / path).resolve(strict=True)
    except FileNotFoundError as error:
        raise ConfigError(
            f"instructions mention @{name}, and there is no such file in {base}: "
            f"write @@{name} if it is not a file"
        ) from error
    except (OSError, RuntimeError) as error:
        raise ConfigError(f"{problem}: {_reason(error)}") from error
    if not real.is_relative_to(base):
        raise ConfigError(f"{problem}: it leads outside of root")
    return _read_file(real, problem).strip()


def _read_file(path: Path, problem: str) -> str:
    """Return the text of a file; errors begin with ``problem``."""
    try:
        if path.exists() and not path.is_file():
            raise ConfigError(f"{problem}: it is not a file")
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except (OSError, RuntimeError) as error:
        raise ConfigError(f"{problem}: {_reason(error)}") from error
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError(f"{problem}: over {MAX_FILE_BYTES} bytes")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{problem}: not UTF-8 text") from error


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or "it can't be read"
