"""``duologue doctor``: report what is installed and what is missing, with the fix."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

import click

from duologue.cli.extras import EXTRAS
from duologue.errors import DuologueError


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report: what was checked, whether it is there, and what to do if not."""

    name: str
    ok: bool
    text: str
    fix: str = ""


@click.command()
def doctor() -> None:
    """Report what is installed and what is missing, one line each, with the fix.

    Exit code: 0 if the built-in engine and the page can run, 1 if they can't.
    """
    needed = {"python", "local", "browser"}
    bad = False
    for finding in _findings():
        mark = click.style("ok  ", fg="green") if finding.ok else click.style("miss", fg="yellow")
        fix = f"  ->  {finding.fix}" if finding.fix else ""
        click.echo(f"{mark} {finding.name:12} {finding.text}{fix}")
        bad = bad or (not finding.ok and finding.name in needed)
    if bad:
        click.get_current_context().exit(1)


def _findings() -> Iterator[Finding]:
    yield Finding(
        "python", True, f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    )
    yield Finding("duologue", True, _version("duologue"))
    yield _machine()
    for extra, (use, modules) in EXTRAS.items():
        yield _extra(extra, use, modules)
    yield from _audio_devices()
    yield from _weights()


def _machine() -> Finding:
    cores = os.cpu_count() or 1
    text = f"{cores} cores"
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    except (ValueError, OSError):
        memory = None
    if memory is not None:
        text += f", {memory:.0f} GB of memory"
    if cores < 2 or (memory is not None and memory < 2):
        return Finding("machine", False, text, "use --profile tiny")
    return Finding("machine", True, text)


def _extra(extra: str, use: str, modules: tuple[str, ...]) -> Finding:
    missing = [name for name in modules if not _is_importable(name)]
    if missing:
        fix = f"pip install 'duologue[{extra}]'"
        return Finding(extra, False, f"{use}: {', '.join(missing)} missing", fix)
    return Finding(extra, True, use)


def _is_importable(name: str) -> bool:
    try:
        import_module(name)
    except ImportError:
        return False
    except OSError:
        return True  # the library that the package binds is missing, which has its own line
    return True


def _audio_devices() -> Iterator[Finding]:
    from duologue.edges import microphone

    try:
        found = microphone.devices()
    except DuologueError as error:
        text, _, fix = str(error).partition(": ")
        yield Finding("devices", False, text, fix)
        return
    inputs = sum(1 for _, _, channels, _ in found if channels)
    outputs = sum(1 for _, _, _, channels in found if channels)
    good = bool(inputs and outputs)
    fix = "" if good else "plug in a headset, or talk from the page: duologue serve"
    yield Finding(
        "devices", good, f"{_count(inputs, 'microphone')}, {_count(outputs, 'loudspeaker')}", fix
    )


def _weights() -> Iterator[Finding]:
    from duologue.weights import Store

    store = Store()
    missing = [entry for entry in store.entries() if entry.state != "ready"]
    ready = len(store.entries()) - len(missing)
    yield Finding("weights", True, f"{ready} here, in {store.root}")
    for entry in missing:
        size = f"{entry.weight.bytes / 1e6:,.0f} MB"
        yield Finding(
            "weights",
            False,
            f"{entry.weight.name} ({size}) {entry.state}",
            f"duologue models fetch {entry.weight.name} (or at first use)",
        )


def _count(number: int, name: str) -> str:
    return f"{number or 'no'} {name}{'' if number == 1 else 's'}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed as a package"
