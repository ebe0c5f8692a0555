"""`JsonlStores`: a folder with a `JsonlStore` for each conversation."""

from __future__ import annotations

from pathlib import Path
from typing import Self
from urllib.parse import quote

from duologue.agent.jsonl_store import JsonlStore
from duologue.errors import ConfigError
from duologue.stores._records import check_conversation_id


class JsonlStores:
    """Keep each conversation in a file of a folder, one change a line; see `JsonlStore`.

    The file of the conversation ``ID`` is ``ID.jsonl``, with ``:`` and ``@`` in their %-form.

    Args:
        folder: The folder; it is made if only it is missing.

    Raises:
        ConfigError: There can be no such folder.
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)
        try:
            self._folder.mkdir(exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{folder} can't be a folder: {error.strerror}") from error

    def conversation(self, conversation_id: str) -> JsonlStore:
        """Return the store of one conversation; nothing is read yet.

        Raises:
            ConfigError: The id is not 1 to 128 ASCII letters, digits and ``. _ : @ + -``.
        """
        return JsonlStore(self._path(conversation_id))

    @property
    def tickets(self) -> None:
        """None: files can't hand a call over."""
        return None

    async def check(self) -> None:
        """Do nothing: the folder was tried when this was made."""

    async def delete(self, conversation_id: str) -> None:
        """Delete the file of a conversation; do nothing if there is none.

        Raises:
            OSError: It can't be deleted.
        """
        self._path(conversation_id).unlink(missing_ok=True)

    async def close(self) -> None:
        """Do nothing: no file stays open."""

    async def __aenter__(self) -> Self:
        """Return itself."""
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Do nothing."""

    def _path(self, conversation_id: str) -> Path:
        return self._folder / f"{quote(check_conversation_id(conversation_id), safe='+')}.jsonl"
