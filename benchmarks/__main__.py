"""Run all benchmarks and write docs/benchmarks.md: ``python -m benchmarks [NAME ...]``.

Each benchmark runs in its own process. With names, only those run, and their lines replace those of
the page.
"""

from __future__ import annotations

import datetime as dt
import json
import platform
import re
import subprocess
import sys
from pathlib import Path

from benchmarks.figures import Figure

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
RUNS: dict[str, list[str]] = {
    "install": ["benchmarks.install", "size"],
    "import": ["benchmarks.install", "import"],
    "framework": ["benchmarks.framework"],
    "tiny": ["benchmarks.engine", "tiny", "short"],
    "tiny-long": ["benchmarks.engine", "tiny", "long"],
    "tiny-real": ["benchmarks.engine", "tiny", "real-short"],
    "tiny-real-long": ["benchmarks.engine", "tiny", "real-long"],
    "tiny-unfinished": ["benchmarks.engine", "tiny", "real-unfinished"],
    "small": ["benchmarks.engine", "small", "short"],
    "small-long": ["benchmarks.engine", "small", "long"],
    "small-real": ["benchmarks.engine", "small", "real-short"],
    "small-real-long": ["benchmarks.engine", "small", "real-long"],
    "barge-in": ["benchmarks.engine", "barge-in"],
    "demo": ["benchmarks.demo"],
    "words": ["benchmarks.engine", "words"],
    "pipeline-sounds": ["benchmarks.sounds", "pipeline"],
    "ray": ["benchmarks.ray_serve"],
    "rtc": ["benchmarks.rtc_echo"],
    "sip": ["benchmarks.sip"],
    "sessions": ["benchmarks.sessions", "edge"],
    "openai-sessions": ["benchmarks.sessions", "openai"],
    "workers": ["benchmarks.workers"],
    "rolling-restart": ["benchmarks.rolling_restart"],
    "observing": ["benchmarks.observing"],
    "browser": ["benchmarks.browser", "tiny"],
    "reconnect": ["benchmarks.reconnect"],
    "phone-latency": ["benchmarks.telephone", "latency"],
    "phone-calls": ["benchmarks.telephone", "calls"],
    "phone-heard": ["benchmarks.telephone", "heard"],
    "phone-memory": ["benchmarks.telephone", "memory"],
    "openai-ws": ["benchmarks.side_by_side", "openai"],
    "openai-wss": ["benchmarks.side_by_side", "openai", "--tls"],
    "openai-one": ["benchmarks.side_by_side", "openai", "--sessions", "1"],
    "openai-one-tls": ["benchmarks.side_by_side", "openai", "--sessions", "1", "--tls"],
    "openai-many": ["benchmarks.side_by_side", "openai", "--sessions", "150"],
    "openai-many-tls": ["benchmarks.side_by_side", "openai", "--sessions", "150", "--tls"],
    "openai-memory": ["benchmarks.session_memory"],
    "openai-path": ["benchmarks.end_to_end", "openai"],
    "openai-interrupts": ["benchmarks.session_fidelity", "openai", "interrupts"],
    "openai-sounds": ["benchmarks.sounds", "openai"],
    "openai-heard": ["benchmarks.session_fidelity", "openai", "heard"],
    "openai-kills": ["benchmarks.session_fidelity", "openai", "kills"],
    "openai-rolling": ["benchmarks.session_fidelity", "openai", "rolling"],
    "openai-setup": ["benchmarks.openai_setup"],
    "gemini-ws": ["benchmarks.side_by_side", "gemini"],
    "gemini-path": ["benchmarks.end_to_end", "gemini"],
    "gemini-interrupts": ["benchmarks.session_fidelity", "gemini", "interrupts"],
    "gemini-sounds": ["benchmarks.sounds", "gemini"],
    "gemini-heard": ["benchmarks.session_fidelity", "gemini", "heard"],
    "gemini-kills": ["benchmarks.session_fidelity", "gemini", "kills"],
    "gemini-rolling": ["benchmarks.session_fidelity", "gemini", "rolling"],
    "gemini-video": ["benchmarks.video"],
    "nova-h2": ["benchmarks.side_by_side", "nova"],
    "nova-interrupts": ["benchmarks.session_fidelity", "nova", "interrupts"],
    "nova-sounds": ["benchmarks.sounds", "nova"],
    "nova-heard": ["benchmarks.session_fidelity", "nova", "heard"],
    "nova-kills": ["benchmarks.session_fidelity", "nova", "kills"],
    "nova-rolling": ["benchmarks.session_fidelity", "nova", "rolling"],
    "nova-minutes": ["benchmarks.nova_soak"],
    "qwen-ws": ["benchmarks.side_by_side", "qwen"],
    "qwen-path": ["benchmarks.end_to_end", "qwen"],
    "qwen-interrupts": ["benchmarks.session_fidelity", "qwen", "interrupts"],
    "qwen-sounds": ["benchmarks.sounds", "qwen"],
    "qwen-heard": ["benchmarks.session_fidelity", "qwen", "heard"],
    "qwen-kills": ["benchmarks.session_fidelity", "qwen", "kills"],
    "qwen-rolling": ["benchmarks.session_fidelity", "qwen", "rolling"],
    "parts-cartesia": ["benchmarks.speech_parts", "cartesia"],
    "parts-deepgram": ["benchmarks.speech_parts", "deepgram"],
    "parts-elevenlabs": ["benchmarks.speech_parts", "elevenlabs"],
    "parts-heard": ["benchmarks.speech_parts", "heard"],
    "parts-cpu": ["benchmarks.speech_parts", "cpu"],
    "replays": ["benchmarks.replays"],
}
HEAD = (
    "# Benchmarks\n\n"
    "Measured by `make bench`, each line by a process of its own; one of them again: "
    "`python -m benchmarks NAME`. Machines like this one are shared and noisy: medians say more "
    "than single figures. A figure that was not reached is written as it is, with what limits "
    "it.\n\n"
    "Sessions with a service are measured beside clients written by hand, which take turns with "
    "them in the same run: *raw* is a client of websockets, orjson and pybase64 (with Nova of h2), "
    "with a task that sends and one that receives; *lean* is one of picows on uvloop, without "
    "tasks. Neither paces replies, keeps audio for a lost connection, or can be interrupted. A "
    "ratio is the median of those of each pass.\n\n"
)


def machine() -> str:
    """Return a description of the machine."""
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", info.read_text()) if info.exists() else []
    cpu = f"{len(names)} x {names[0]}" if names else platform.processor()
    return f"{platform.system()} {platform.machine()}, {cpu}, Python {platform.python_version()}"


def measure(name: str) -> list[Figure]:
    """Run one benchmark and return its figures."""
    module, *arguments = RUNS[name]
    sys.stderr.write(f"{name} ...\n")
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=1800, check=False)
    found = [
        Figure(**json.loads(line.removeprefix("FIGURE ")))
        for line in done.stdout.splitlines()
        if line.startswith("FIGURE ")
    ]
    if done.returncode or not found:
        note = f"exit code {done.returncode}"
        found.append(Figure(name, "", "could not be measured", reached=False, note=note))
    for figure in found:
        sys.stderr.write(f"  {figure.name}: {figure.value}\n")
    return found


def rows(name: str, figures: list[Figure], where: str) -> list[str]:
    """Return the lines of the table, each marked with its benchmark's name."""
    return [
        f"| {name} | {f.name} | {f.target} | {f.value} | {'yes' if f.reached else 'no'} "
        f"| {f.note}{'; ' if f.note else ''}{where} |"
        for f in figures
    ]


def main() -> None:
    chosen = sys.argv[1:] or list(RUNS)
    unknown = [name for name in chosen if name not in RUNS]
    if unknown:
        sys.exit(f"no benchmark is called {unknown[0]!r}; there are: {', '.join(RUNS)}")
    lines = PAGE.read_text().splitlines() if PAGE.exists() else []
    kept = {
        name: [line for line in lines if line.startswith(f"| {name} |")]
        for name in RUNS
        if name not in chosen
    }
    today = f"{dt.datetime.now(dt.UTC).date()}"
    for name in chosen:
        kept[name] = rows(name, measure(name), today)
    table = [
        "| run | figure | to reach | measured | reached | notes |",
        "|---|---|---|---|---|---|",
    ]
    table += [line for name in RUNS for line in kept[name]]
    PAGE.write_text(f"{HEAD}Machine: {machine()}.\n\n" + "\n".join(table) + "\n")


if __name__ == "__main__":
    main()
