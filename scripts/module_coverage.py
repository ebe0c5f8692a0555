"""Check that the own tests of each sans-IO module cover it by themselves.

``python scripts/module_coverage.py [WORD ...]`` runs, for every module of the table below (or for
those whose path contains a WORD), only the test files that the table names, and fails if they cover
less than 95 % of the module's lines and branches. Tests of whole sessions cover these modules too,
but they do not say which one is wrong when they fail.

A module is sans-IO if it only computes: it opens no socket, starts no task, and gets the time from
its caller. All modules of the folders in `SANS_IO_FOLDERS` must be in the table.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
SOURCE = Path("src/duologue")
MIN_PERCENT = 95
TIMEOUT_S = 300

SANS_IO_FOLDERS = ("realtime/_session", "providers/_openai_protocol")
"""Folders in which every module has a line in the table, or in `NOT_SANS_IO`."""

NOT_SANS_IO = {
    "realtime/_session/connections.py": "runs the tasks of connections",
    "realtime/_session/session.py": "runs the session, and is tested through Realtime",
    "providers/_openai_protocol/dialect.py": "declares the options of servers",
    "providers/_openai_protocol/webrtc.py": "opens WebRTC connections",
    "providers/_openai_protocol/websocket.py": "opens WebSockets",
}

_OPENAI_CODEC = (
    "providers/_openai_protocol/test_openai_codec.py",
    "providers/_openai_protocol/test_openai_codec_decode.py",
    "providers/_openai_protocol/test_codec_other_servers.py",
    "providers/qwen/test_qwen_codec_decode.py",
)

TESTS: dict[str, tuple[str, ...]] = {
    "agent/barge_in.py": ("agent/test_barge_in.py",),
    "agent/playout.py": ("agent/test_playout.py",),
    "agent/speech.py": ("agent/test_speech.py",),
    "agent/speech_tracker.py": ("agent/test_speech_tracker.py",),
    "providers/_openai_protocol/append_only_history.py": ("providers/qwen/test_qwen_codec.py",),
    "providers/_openai_protocol/codec.py": _OPENAI_CODEC,
    "providers/_openai_protocol/encoder.py": ("providers/_openai_protocol/test_encoder.py",),
    "providers/_openai_protocol/errors.py": ("providers/_openai_protocol/test_openai_errors.py",),
    "providers/_openai_protocol/input_turns.py": (
        "providers/_openai_protocol/test_input_turns.py",
    ),
    "providers/_openai_protocol/items.py": ("providers/_openai_protocol/test_openai_items.py",),
    "providers/_openai_protocol/pending_requests.py": (
        "providers/_openai_protocol/test_pending_requests.py",
    ),
    "providers/_openai_protocol/responses.py": ("providers/_openai_protocol/test_responses.py",),
    "providers/_openai_protocol/sent_events.py": (
        "providers/_openai_protocol/test_sent_events.py",
    ),
    "providers/_openai_protocol/server_conversation.py": (
        "providers/_openai_protocol/test_server_conversation.py",
    ),
    "providers/_openai_protocol/tagged_requests.py": (
        "providers/_openai_protocol/test_tagged_requests.py",
    ),
    "providers/_openai_protocol/uninterruptible.py": (
        "providers/_openai_protocol/test_uninterruptible.py",
    ),
    "providers/aws/_blocks.py": ("providers/aws/test_aws_codec.py",),
    "providers/aws/_codec.py": ("providers/aws/test_aws_codec.py",),
    "providers/aws/_errors.py": ("providers/aws/test_aws_errors.py",),
    "providers/aws/_event_sequence.py": ("providers/aws/test_aws_codec.py",),
    "providers/aws/_history.py": ("providers/aws/test_aws_history.py",),
    "providers/aws/_replies.py": ("providers/aws/test_aws_replies.py",),
    "providers/gemini/_codec.py": ("providers/gemini/test_gemini_codec.py",),
    "providers/gemini/_decoder.py": (
        "providers/gemini/test_gemini_decoder.py",
        "providers/gemini/test_gemini_tools.py",
    ),
    "providers/gemini/_errors.py": ("providers/gemini/test_gemini_errors.py",),
    "providers/gemini/_manual_turns.py": ("providers/gemini/test_gemini_manual_turns.py",),
    "providers/gemini/_pending_context.py": (
        "providers/gemini/test_gemini_pending_context.py",
        "providers/gemini/test_gemini_tools.py",
    ),
    "providers/gemini/_reply_tracker.py": ("providers/gemini/test_gemini_reply_tracker.py",),
    "providers/gemini/_resumption.py": ("providers/gemini/test_gemini_resumption.py",),
    "providers/gemini/_setup_json.py": (
        "providers/gemini/test_gemini_config.py",
        "providers/gemini/test_gemini_codec.py",
    ),
    "providers/qwen/_codec.py": ("providers/qwen/test_qwen_codec.py",),
    "providers/qwen/_errors.py": ("providers/qwen/test_qwen_errors.py",),
    "realtime/_session/history_diff.py": ("realtime/_session/test_history_diff.py",),
    "realtime/_session/input_audio.py": ("realtime/_session/test_input_audio.py",),
    "realtime/_session/local_turns.py": ("realtime/_session/test_local_turns.py",),
    "realtime/_session/partial_transcripts.py": ("realtime/_session/test_partial_transcripts.py",),
    "realtime/_session/replay_buffer.py": ("realtime/_session/test_replay_buffer.py",),
    "realtime/_session/replayed_turns.py": ("realtime/_session/test_replayed_turns.py",),
    "realtime/_session/reply_scheduler.py": ("realtime/_session/test_reply_scheduler.py",),
    "realtime/_session/resume.py": ("realtime/_session/test_resume.py",),
    "realtime/_session/silence_monitor.py": ("realtime/_session/test_silence_monitor.py",),
    "realtime/_session/surrogates.py": ("realtime/_session/test_surrogates.py",),
    "realtime/_session/tool_calls.py": ("realtime/_session/test_tool_calls.py",),
    "realtime/reply_slicer.py": ("realtime/test_reply_slicer.py",),
    "rtc/_rtcp.py": ("rtc/test_rtcp.py",),
    "rtc/jitter.py": ("rtc/test_jitter.py",),
    "vad/endpointing.py": ("vad/test_endpointing.py",),
    "vad/level_gate.py": ("vad/test_level_gate.py",),
    "vad/preroll.py": ("vad/test_preroll.py",),
    "vad/voice_meter.py": ("vad/test_voice_meter.py",),
    "vad/words.py": ("vad/test_words.py",),
}
"""Test files, below ``tests``, by the path of their module below ``src/duologue``."""


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome for one module; ``report`` says what is missing if it failed."""

    module: str
    percent: float | None
    report: str

    @property
    def passed(self) -> bool:
        """Whether the tests passed and cover enough."""
        return self.percent is not None and self.percent >= MIN_PERCENT


def measure(tests: tuple[str, ...], modules: list[str]) -> list[Result]:
    """Run some test files once, and measure how much they cover of each of ``modules``."""
    sources = [str(SOURCE / module) for module in modules]
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "COVERAGE_FILE": f"{folder}/data"}

        def coverage(*arguments: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(  # noqa: S603 - our own command
                [sys.executable, "-m", "coverage", *arguments],
                cwd=ROOT,
                env=environment,
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
                check=False,
            )

        run = coverage(
            "run", "--branch", f"--include={','.join(sources)}",
            "-m", "pytest", "-q", "-p", "no:cacheprovider",
            *(f"tests/{name}" for name in tests),
        )  # fmt: skip
        if run.returncode:
            report = run.stdout[-3000:] + run.stderr[-1000:]
            return [Result(module, None, report) for module in modules]
        coverage("json", "-q", "-o", f"{folder}/report.json")
        try:
            files = json.loads(Path(folder, "report.json").read_text())["files"]
        except FileNotFoundError:
            files = {}
        return [_result(module, files.get(str(SOURCE / module))) for module in modules]


def _result(module: str, entry: dict[str, Any] | None) -> Result:
    if entry is None:
        return Result(module, 0.0, "the tests do not import it")
    lines = ", ".join(map(str, entry["missing_lines"])) or "none"
    branches = ", ".join(f"{a} -> {b}" for a, b in entry["missing_branches"]) or "none"
    report = f"lines not run: {lines}\nbranches not taken: {branches}"
    return Result(module, entry["summary"]["percent_covered"], report)


def unlisted() -> list[str]:
    """Return the modules of sans-IO folders that are not in the table."""
    paths = [path for folder in SANS_IO_FOLDERS for path in (ROOT / SOURCE / folder).glob("*.py")]
    names = {str(path.relative_to(ROOT / SOURCE)) for path in paths if path.stem != "__init__"}
    return sorted(names - TESTS.keys() - NOT_SANS_IO.keys())


def main(words: list[str]) -> int:
    """Measure the modules and print a line for each; return the exit status."""
    missing = unlisted()
    for module in missing:
        sys.stdout.write(f"{module} has no line in the table of {Path(__file__).name}\n")
    groups: dict[tuple[str, ...], list[str]] = {}
    for module, tests in TESTS.items():
        if not words or any(word in module for word in words):
            groups.setdefault(tests, []).append(module)
    failed = bool(missing)
    with ThreadPoolExecutor(os.cpu_count() or 2) as pool:
        for results in pool.map(lambda group: measure(*group), groups.items()):
            for result in results:
                percent = "tests failed" if result.percent is None else f"{result.percent:.1f} %"
                sys.stdout.write(f"{percent:>12}  {result.module}\n")
                if not result.passed:
                    failed = True
                    sys.stdout.write(f"{result.report}\n")
            sys.stdout.flush()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
