"""Fetch one file of a model hub, continue downloads that were interrupted, and explain failures.

The hub's own client finds the file, the key and the proxies. It starts an interrupted download
from the beginning each time, which takes long with files of gigabytes. So the part that has arrived
is kept here under the hash that the hub announces, and the client only fetches the rest.
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from urllib.parse import urlsplit

from duologue._optional import import_optional
from duologue.errors import ConfigError
from duologue.weights._errors import WeightsError
from duologue.weights._sources import HUB_TIMEOUT_S, check_reachable, first_line

PREFIX = "hf:"
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
_MAX_SHOWN_FILES = 6


@dataclass(frozen=True, slots=True)
class HubFile:
    """One GGUF file of a model hub: ``hf:ORG/REPO/FILE.gguf``, or with ``@REVISION`` behind it."""

    org: str
    repo: str
    file: str
    revision: str = "main"

    @classmethod
    def parse(cls, text: str) -> HubFile:
        """Read ``hf:ORG/REPO/FILE.gguf`` or ``hf:ORG/REPO/FILE.gguf@REVISION``.

        Raises:
            ConfigError: This is something else.
        """
        location, _, revision = text.removeprefix(PREFIX).partition("@")
        org, _, rest = location.partition("/")
        repo, _, file = rest.partition("/")
        parts = [org, repo, *file.split("/"), *((revision,) if "@" in text else ())]
        good = all(_NAME.fullmatch(part) and ".." not in part for part in parts)
        if not text.startswith(PREFIX) or not good or not file.lower().endswith(".gguf"):
            raise ConfigError(
                f"{text!r} must be hf:ORG/REPO/FILE.gguf: the name of one GGUF file in a repository"
            )
        return cls(org, repo, file, revision or "main")

    @property
    def repository(self) -> str:
        """``ORG/REPO``."""
        return f"{self.org}/{self.repo}"

    @property
    def key(self) -> str:
        """A name for folders and locks."""
        return "--".join((self.org, self.repo, *self.file.split("/"), self.revision))

    @property
    def stem(self) -> str:
        """The name of the file without ``.gguf``."""
        return Path(self.file).stem

    def __str__(self) -> str:
        revision = "" if self.revision == "main" else f"@{self.revision}"
        return f"{PREFIX}{self.repository}/{self.file}{revision}"


@dataclass(frozen=True, slots=True)
class FetchedFile:
    """A complete download, and the SHA-256 that the hub announces for it, if it does."""

    path: Path
    announced_sha256: str | None


def fetch(
    file: HubFile, folder: Path, *, progress: bool, stop: threading.Event | None = None
) -> FetchedFile:
    """Download ``file`` into ``folder``; continue where an earlier try ended.

    Args:
        file: The file.
        folder: Where to put it, and what has come of it.
        progress: Show a bar on a terminal.
        stop: End the download when this is set.

    Raises:
        WeightsError: The hub does not provide the file; the text says what to do.
    """
    hub = import_optional("huggingface_hub", "local")
    download = import_optional("huggingface_hub.file_download", "local")
    constants = import_optional("huggingface_hub.constants", "local")
    utils = import_optional("huggingface_hub.utils", "local")
    endpoint = str(constants.ENDPOINT)
    if constants.HF_HUB_OFFLINE:
        raise WeightsError(f"can't get {file}: HF_HUB_OFFLINE forbids fetching; unset it")
    try:
        check_reachable(endpoint)
        url = hub.hf_hub_url(file.repository, file.file, revision=file.revision, endpoint=endpoint)
        found = hub.get_hf_file_metadata(url, timeout=HUB_TIMEOUT_S)
        headers = utils.build_hf_headers()
        if urlsplit(found.location).netloc != urlsplit(url).netloc:
            headers.pop("authorization", None)  # the address is signed, and of another server
        name = re.sub(r"\W", "", found.etag or "") or "unknown"
        target = folder / f"{name}.part"
        folder.mkdir(parents=True, exist_ok=True)
        for other in folder.iterdir():  # of an earlier version of the file
            if other != target:
                other.unlink()
        with target.open("ab") as part:
            download.http_get(
                found.location,
                part,
                resume_size=part.tell(),
                headers=headers,
                expected_size=found.size,
                displayed_filename=Path(file.file).name,
                tqdm_class=_bar_class(utils, progress=progress, stop=stop),
            )
    except _StoppedError:
        raise WeightsError(
            f"the download of {file} was stopped; the next one continues it"
        ) from None
    except Exception as error:  # errors of the client's HTTP library, which changes with versions
        raise WeightsError(f"can't get {file}: {_explain(error, file, endpoint)}") from error
    announced = name if re.fullmatch(r"[0-9a-f]{64}", name) else None
    return FetchedFile(target, announced)


class _StoppedError(Exception):
    """The download was stopped."""


def _bar_class(utils: ModuleType, *, progress: bool, stop: threading.Event | None) -> type[object]:
    base: type = utils.tqdm

    class Bar(base):  # type: ignore[misc]
        """A progress bar that also ends the download."""

        def __init__(self, *args: object, **kwargs: object) -> None:
            if not progress:
                kwargs["disable"] = True
            super().__init__(*args, **kwargs)

        def update(self, n: float = 1) -> object:
            if stop is not None and stop.is_set():
                raise _StoppedError
            result: object = super().update(n)
            return result

    return Bar


def _explain(error: Exception, file: HubFile, endpoint: str) -> str:
    """Return what to do about an error of the hub's client, in one line."""
    errors = import_optional("huggingface_hub.errors", "local")
    utils = import_optional("huggingface_hub.utils", "local")
    page = f"{endpoint}/{file.repository}"
    status = getattr(getattr(error, "response", None), "status_code", None)
    match error:
        case errors.GatedRepoError():
            return (
                f"its authors want to know who uses it: accept their terms at {page}, then set "
                "HF_TOKEN to a key of yours (or run 'hf auth login')"
            )
        case errors.RevisionNotFoundError():
            return f"{file.repository} has no revision {file.revision!r}: see {page}"
        case errors.EntryNotFoundError() if status == 404:
            return f"{file.repository} has no such file{_other_files(file, endpoint)}"
        case errors.HfHubHTTPError() if status == 401 and utils.get_token():
            return "the hub does not accept the key in HF_TOKEN (or of 'hf auth login'): renew it"
        case errors.HfHubHTTPError() if status == 401 or isinstance(
            error, errors.RepositoryNotFoundError
        ):
            return (
                f"there is no repository {file.repository} at {endpoint}, or it is private: check "
                "the name; for a private one set HF_TOKEN"
            )
        case errors.HfHubHTTPError() if status == 403:
            return f"the key in HF_TOKEN may not read {file.repository}: see {page}"
        case errors.HfHubHTTPError() if status == 429:
            return "the hub has had too many requests: try again later, or with HF_TOKEN"
        case errors.HfHubHTTPError() if status == 404:
            return f"there is no such file at {endpoint}: check the name"
        case errors.HfHubHTTPError() if status is not None and status >= 500:
            return f"the hub fails (status {status}): try again later"
        case WeightsError():
            return f"{endpoint} does not answer: check the network, or HF_ENDPOINT"
        case OSError() if error.errno is not None and error.strerror:
            return f"{error.strerror.lower()}: make room, or set DUOLOGUE_CACHE to another folder"
    text = first_line(error)
    return f"{text.rstrip('.')}: run it again, it continues where it ended"


def _other_files(file: HubFile, endpoint: str) -> str:
    """Return which GGUF files the repository has, if the hub says it."""
    hub = import_optional("huggingface_hub", "local")
    try:
        names = hub.HfApi(endpoint=endpoint).list_repo_files(
            file.repository, revision=file.revision
        )
        found = sorted(str(name) for name in names if str(name).lower().endswith(".gguf"))
    except Exception:  # noqa: BLE001 - whatever fails here, the error about the file matters
        return f": see {endpoint}/{file.repository}/tree/{file.revision}"
    if not found:
        return ", and no other GGUF file: take a repository with 'GGUF' in its name"
    more = f" and {len(found) - _MAX_SHOWN_FILES} more" if len(found) > _MAX_SHOWN_FILES else ""
    return f"; it has {', '.join(found[:_MAX_SHOWN_FILES])}{more}"
