"""Instructions of an agent, with files pulled in where the text says ``@notes.md``."""

from __future__ import annotations

import re
from pathlib import Path

from duologue.realtime.errors import ConfigError

MAX_FILE = 64 * 1024
"""Bytes that one pulled-in file may have."""

MAX_TEXT = 256 * 1024
"""Characters that instructions may have, files included."""

# Not behind a word character, so that a@b.c is no file; and only names with a suffix, so that
# "@anna" is no file either. Dots and commas that end a sentence are not part of the name.
_MENTION = re.compile(r"(?<![\w@./\\-])@(?P<path>[\w./\\~:-]*\w\.[A-Za-z0-9]{1,10})(?![\w@])")


def load_instructions(text: str, root: Path | None = None) -> str:
    """Put the text of each file that ``text`` mentions as ``@path/name.ext`` in its place.

    Paths are relative to ``root`` (default: the working directory) and stay inside of it, also
    behind symbolic links. Pulled-in text is not searched for further mentions; an email address
    is no mention. Raises `ConfigError` for a file that is missing, outside, not UTF-8 text, over
    `MAX_FILE`, or when all of it is over `MAX_TEXT`.
    """
    base = (Path.cwd() if root is None else root).resolve()
    loaded = _MENTION.sub(lambda match: _read(match["path"], base), text)
    if len(loaded) > MAX_TEXT:
        raise ConfigError(
            f"instructions are {len(loaded)} characters with their files, at most {MAX_TEXT}"
        )
    return loaded


def _read(name: str, base: Path) -> str:
    path = Path(name)
    if path.is_absolute() or name.startswith("~") or ".." in path.parts or "\\" in name:
        raise ConfigError(
            f"instructions can't pull in @{name}: use a path inside the working directory"
        )
    try:
        real = (base / path).resolve(strict=True)
        if not real.is_relative_to(base):
            raise ConfigError(
                f"instructions can't pull in @{name}: it leads outside the working directory"
            )
        if not real.is_file():
            raise ConfigError(f"instructions can't pull in @{name}: it is not a file")
        with real.open("rb") as file:
            content = file.read(MAX_FILE + 1)
    except FileNotFoundError as error:
        raise ConfigError(
            f"instructions mention @{name}, and there is no such file in the working directory"
        ) from error
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or "can't be read"
        raise ConfigError(f"instructions can't pull in @{name}: {reason}") from error
    if len(content) > MAX_FILE:
        raise ConfigError(f"instructions can't pull in @{name}: over {MAX_FILE} bytes")
    try:
        return content.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise ConfigError(f"instructions can't pull in @{name}: not UTF-8 text") from error
