"""``duologue doctor``: report what is installed and what is missing, with the fix."""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import click

from duologue.cli.agent_source import ModelSource
from duologue.cli.extras import EXTRAS
from duologue.cli.options import ModelOptions, run_in_chosen_loop
from duologue.errors import DuologueError


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report: what was checked, whether it is there, and what to do if not."""

    name: str
    ok: bool
    text: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class _Key:
    """How a vendor's key is found and what it looks like: ``form`` for people, ``pattern`` here."""

    vendor: str
    variables: tuple[str, ...]
    pattern: str
    form: str


_KEYS = (
    _Key("Anthropic", ("ANTHROPIC_API_KEY",), r"sk-ant-[\w-]{20,}", "sk-ant-..."),
    _Key("Cartesia", ("CARTESIA_API_KEY",), r"sk_car_\w{10,}", "sk_car_..."),
    _Key("Deepgram", ("DEEPGRAM_API_KEY",), r"[0-9a-f]{40}", "40 hex digits"),
    _Key(
        "ElevenLabs", ("ELEVENLABS_API_KEY",), r"sk_[0-9a-f]{48}|[0-9a-f]{32}", "sk_ and hex digits"
    ),
    _Key(
        "Google",
        ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
        r"AIza[\w-]{35}|AQ\.[\w.-]{20,}",
        "AIza... or AQ....",
    ),
    _Key("OpenAI", ("OPENAI_API_KEY",), r"sk-[\w-]{20,}", "sk-..."),
    _Key("Qwen", ("DASHSCOPE_API_KEY",), r"sk-[\w.-]{20,}", "sk-..."),
)
_AWS_ID = r"(?:AKIA|ASIA)[A-Z2-7]{16}"


_VENDORS = {
    "anthropic": "Anthropic",
    "cartesia": "Cartesia",
    "deepgram": "Deepgram",
    "elevenlabs": "ElevenLabs",
    "gemini": "Google",
    "openai": "OpenAI",
    "qwen": "Qwen",
}
"""Whose key a provider needs."""


@click.command()
@click.option(
    "--llm",
    metavar="PROVIDER[:MODEL]",
    help="Look at this model only: its extras, its key, and whether its service accepts it.",
)
@click.option("--stt", metavar="NAME[:MODEL]", help="A recogniser before a text model.")
@click.option("--tts", metavar="NAME[:VOICE]", help="A voice after a text model.")
@click.option(
    "--set", "settings", metavar="KEY=VALUE", multiple=True, help="Option of the model, as for run."
)
def doctor(llm: str | None, stt: str | None, tts: str | None, settings: tuple[str, ...]) -> None:
    """Report what is installed and what is missing, one line each, with the fix.

    With --llm, the report is about that model, and its service is tried by a short connection.

    Exit code: 0 if the built-in engine and the page can run, or the model can talk; 1 if not.

    \b
    duologue doctor
    duologue doctor --llm openai
    """
    needed = {"python", "local", "browser"}
    findings = _findings()
    if llm or stt or tts or settings:
        model = ModelOptions(llm=llm, stt=stt, tts=tts, settings=settings)
        findings = _model_findings(model)
        needed = {*EXTRAS, "service"}
    bad = False
    for finding in findings:
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
    yield from map(_key, _KEYS)
    yield _aws_keys()


def _model_findings(model: ModelOptions) -> Iterator[Finding]:
    """Report on one model: its extras, its keys, and whether a short connection succeeds."""
    source = ModelSource(model)
    extras = [_extra(extra, *EXTRAS[extra]) for extra in source.extras]
    yield from extras
    parts = (model.provider, model.stt, model.tts)
    providers = dict.fromkeys(part.partition(":")[0] for part in parts if part is not None)
    keys = {key.vendor: key for key in _KEYS}
    for provider in providers:
        if provider in _VENDORS:
            yield _key(keys[_VENDORS[provider]])
        elif provider == "aws":
            yield _aws_keys()
    if all(extra.ok for extra in extras):
        yield _service(source)


def _service(source: ModelSource) -> Finding:
    """Try the model by a short connection."""
    began = time.monotonic()
    try:
        warning = run_in_chosen_loop(source.prepare())
    except DuologueError as error:
        return Finding("service", False, str(error))
    if warning:
        return Finding("service", False, warning, "check the network, the proxy and base_url")
    seconds = time.monotonic() - began
    return Finding("service", True, f"{source.description} is ready ({seconds:.1f} s)")


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


def _key(key: _Key) -> Finding:
    """Report on a key by its form alone: nothing is sent, and nothing of the key is printed."""
    variable = next((name for name in key.variables if os.environ.get(name)), None)
    if variable is None:
        return Finding("key", False, f"{key.vendor}: not set", f"set {key.variables[0]}")
    if fault := _fault_of_key(os.environ[variable]):
        return Finding("key", False, f"{key.vendor}: {variable} {fault}", "copy the key again")
    if re.fullmatch(key.pattern, os.environ[variable]) is None:
        fix = "check it, unless it is for a server of your own"
        text = f"{key.vendor}: {variable} is set, but does not look like a key ({key.form})"
        return Finding("key", False, text, fix)
    return Finding("key", True, f"{key.vendor}: {variable} is set and looks like a key")


def _aws_keys() -> Finding:
    """Report on the keys for Amazon Nova Sonic; a file or the role of a machine may hold them."""
    key_id, secret = (
        os.environ.get(f"AWS_{name}", "") for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY")
    )
    if not key_id and not secret:
        folder = Path("~/.aws").expanduser()
        files = (
            os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or folder / "credentials",
            os.environ.get("AWS_CONFIG_FILE") or folder / "config",
        )
        if found := next((path for path in files if Path(path).expanduser().is_file()), None):
            return Finding("key", True, f"AWS: not set, but there is {found}")
        fix = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the machine a role"
        return Finding("key", False, "AWS: not set", fix)
    for name, value in (("AWS_ACCESS_KEY_ID", key_id), ("AWS_SECRET_ACCESS_KEY", secret)):
        if not value:
            return Finding("key", False, f"AWS: {name} is not set, but its other half is", "set it")
        if fault := _fault_of_key(value):
            return Finding("key", False, f"AWS: {name} {fault}", "copy the key again")
    if re.fullmatch(_AWS_ID, key_id) is None or len(secret) < 40:
        text = "AWS: keys are set, but do not look like keys (AKIA..., and a secret of 40 letters)"
        return Finding("key", False, text, "check them, unless they are for a server of your own")
    if key_id.startswith("ASIA") and not os.environ.get("AWS_SESSION_TOKEN"):
        return Finding(
            "key", False, "AWS: temporary keys lack their token", "set AWS_SESSION_TOKEN"
        )
    return Finding("key", True, "AWS: AWS_ACCESS_KEY_ID is set and looks like a key")


def _fault_of_key(value: str) -> str:
    if value.strip() != value or value[:1] in "\"'":
        return "has spaces, line ends or quotes around it"
    if not value.isascii() or not value.isprintable() or " " in value:
        return "has characters that no key has"
    return ""


def _count(number: int, name: str) -> str:
    return f"{number or 'no'} {name}{'' if number == 1 else 's'}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed as a package"
