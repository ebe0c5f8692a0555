"""Check that the own tests of each sans-IO module cover it by themselves.

``python scripts/module_coverage.py [WORD ...]`` fails if the test files that the table below names
for a module cover less than 95 % of its lines and branches. With WORDs it only looks at modules
whose path contains one of them. Tests of whole sessions cover these modules too, but they do not
say which one is wrong when they fail.

A module is sans-IO if it only computes: it opens no socket, starts no task, and gets the time from
its caller. All modules of the folders in `SANS_IO_FOLDERS` must be in the table. The
two that run a session, ``connections.py`` and ``session.py``, are in it as well: their tests use
fake connections and virtual time.

All test files run in a few worker processes, because starting one for each takes longer than the
tests. A worker tells coverage which file each test belongs to, so that a module is only credited
with what its own tests run. What runs at import counts for every module.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path

import coverage
import pytest

ROOT = Path(__file__).parent.parent
SOURCE = Path("src/duologue")
MIN_PERCENT = 95

SANS_IO_FOLDERS = ("realtime/_session", "providers/_openai_protocol", "providers/gemini")
"""Folders in which every module has a line in the table, or in `NOT_SANS_IO`."""

NOT_SANS_IO = {
    "providers/gemini/_auth.py": "fetches bearer tokens",
    "providers/gemini/_capabilities.py": "declares capabilities",
    "providers/gemini/_llm.py": "makes HTTP requests",
    "providers/gemini/_realtime.py": "opens connections",
    "providers/gemini/_vertex.py": "fetches bearer tokens",
    "providers/_openai_protocol/dialect.py": "declares the options of servers",
    "realtime/_session/bordered.py": "passes commands on",
    "providers/_openai_protocol/webrtc.py": "opens WebRTC connections",
    "providers/_openai_protocol/websocket.py": "opens WebSockets",
}

_OPENAI_CODEC = (
    "providers/_openai_protocol/test_openai_codec.py",
    "providers/_openai_protocol/test_openai_codec_decode.py",
    "providers/_openai_protocol/test_codec_other_servers.py",
    "providers/_openai_protocol/test_audio_deltas.py",
    "providers/qwen/test_qwen_codec.py",
    "providers/qwen/test_qwen_codec_decode.py",
)

_ANTHROPIC = (
    "providers/anthropic/test_anthropic_llm.py",
    "providers/anthropic/test_anthropic_messages.py",
)

TESTS: dict[str, tuple[str, ...]] = {
    "batch.py": ("test_batch.py",),
    "cli/batch_table.py": ("cli/test_cli_batch.py",),
    "providers/settings.py": ("providers/test_settings.py",),
    "_companding.py": ("test_companding.py",),
    "observe/_call_story.py": ("observe/test_call_story.py", "observe/test_explanations.py"),
    "observe/explanations.py": ("observe/test_call_story.py", "observe/test_explanations.py"),
    "_json_logs.py": ("test_json_logs.py",),
    "server/_fleet.py": ("server/test_fleet.py",),
    "server/_merged_metrics.py": ("server/test_merged_metrics.py",),
    "observe/_call_spans.py": ("observe/test_call_spans.py",),
    "observe/_stereo_timeline.py": ("observe/test_stereo_timeline.py",),
    "testing/_wire_comparison.py": ("testing/test_wire_comparison.py",),
    "testing/_wire_script.py": ("testing/test_wire_script.py",),
    "_g711.py": ("test_g711.py",),
    "agent/_digits.py": ("agent/test_digits.py",),
    "edges/_arrivals.py": ("edges/test_arrivals.py",),
    "edges/_websocket_messages.py": ("edges/test_websocket_messages.py",),
    "edges/rtvi/_messages.py": ("edges/rtvi/test_rtvi_messages.py",),
    "edges/telephone/_call_token.py": ("edges/telephone/test_signatures.py",),
    "edges/telephone/_formats.py": (
        "edges/telephone/test_telnyx_codec.py",
        "edges/telephone/test_plivo_codec.py",
        "edges/telephone/test_vonage_codec.py",
    ),
    "edges/telephone/_mark_ledger.py": ("edges/telephone/test_mark_ledger.py",),
    "edges/telephone/_plivo_codec.py": ("edges/telephone/test_plivo_codec.py",),
    "edges/telephone/_signatures.py": ("edges/telephone/test_signatures.py",),
    "edges/telephone/_sip_address.py": ("edges/telephone/test_sip_address.py",),
    "edges/telephone/_sip_output.py": ("edges/telephone/test_sip_output.py",),
    "edges/telephone/_telnyx_codec.py": ("edges/telephone/test_telnyx_codec.py",),
    "edges/telephone/_twilio_codec.py": ("edges/telephone/test_twilio_codec.py",),
    "edges/telephone/_vonage_codec.py": ("edges/telephone/test_vonage_codec.py",),
    "weights/_gguf.py": ("weights/test_gguf.py",),
    "pipeline/reply_voice.py": ("pipeline/test_reply_voice.py",),
    "pipeline/_reply_speaker.py": (
        "pipeline/test_reply_voice.py",
        "pipeline/test_heard_reports.py",
    ),
    "pipeline/_emitter.py": ("pipeline/test_reply_voice.py",),
    "pipeline/_recognition_log.py": ("pipeline/test_recognition_log.py",),
    "pipeline/_voice_contexts.py": ("pipeline/test_voice_contexts.py",),
    "pipeline/_word_alignment.py": ("pipeline/test_word_alignment.py",),
    "providers/_chat_history.py": ("providers/test_chat_history.py",),
    "providers/_speech_json.py": ("providers/test_speech_json.py",),
    "providers/anthropic/_message_stream.py": _ANTHROPIC,
    "providers/anthropic/_messages.py": _ANTHROPIC,
    "providers/anthropic/_thinking.py": _ANTHROPIC,
    "providers/cartesia/_manual_stt_codec.py": (
        "providers/cartesia/test_cartesia_manual_stt_codec.py",
    ),
    "providers/cartesia/_stt_codec.py": ("providers/cartesia/test_cartesia_stt_codec.py",),
    "providers/cartesia/_tts_codec.py": ("providers/cartesia/test_cartesia_tts_codec.py",),
    "providers/deepgram/_aura_tts_codec.py": ("providers/deepgram/test_deepgram_tts_codecs.py",),
    "providers/deepgram/_flux_stt_codec.py": ("providers/deepgram/test_deepgram_stt_codecs.py",),
    "providers/deepgram/_flux_tts_codec.py": ("providers/deepgram/test_deepgram_tts_codecs.py",),
    "providers/deepgram/_nova_stt_codec.py": ("providers/deepgram/test_deepgram_stt_codecs.py",),
    "providers/elevenlabs/_stt_codec.py": ("providers/elevenlabs/test_elevenlabs_codecs.py",),
    "providers/elevenlabs/_tts_codec.py": ("providers/elevenlabs/test_elevenlabs_codecs.py",),
    "providers/openai/_stt_codec.py": ("providers/openai/test_openai_stt_codec.py",),
    "agent/_catch_up.py": ("agent/test_catch_up.py",),
    "agent/_time_compression.py": ("agent/test_time_compression.py",),
    "agent/barge_in.py": ("agent/test_barge_in.py",),
    "agent/playout.py": ("agent/test_playout.py", "agent/test_playout_catch_up.py"),
    "agent/speech.py": ("agent/test_speech.py",),
    "agent/speech_tracker.py": ("agent/test_speech_tracker.py",),
    "simulators/openai/_speech_api.py": ("simulators/openai/test_simulated_openai_speech.py",),
    "agent/turn_metrics.py": ("agent/test_turn_metrics.py",),
    "pipeline/_stable_text.py": ("pipeline/test_stable_text.py",),
    "providers/_openai_protocol/append_only_history.py": ("providers/qwen/test_qwen_codec.py",),
    "providers/_openai_protocol/audio_deltas.py": (
        "providers/_openai_protocol/test_audio_deltas.py",
    ),
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
    "providers/aws/_blocks.py": ("providers/aws/test_aws_blocks.py",),
    "providers/aws/_codec.py": ("providers/aws/test_aws_codec.py",),
    "providers/aws/_errors.py": ("providers/aws/test_aws_errors.py",),
    "providers/aws/_event_sequence.py": ("providers/aws/test_aws_event_sequence.py",),
    "providers/aws/_event_stream.py": ("providers/aws/test_aws_event_stream.py",),
    "providers/aws/_h2_request.py": ("providers/aws/test_aws_h2_request.py",),
    "providers/aws/_history.py": ("providers/aws/test_aws_history.py",),
    "providers/aws/_replies.py": ("providers/aws/test_aws_replies.py",),
    "providers/gemini/_audio.py": ("providers/gemini/test_gemini_decoder.py",),
    "providers/gemini/_codec.py": ("providers/gemini/test_gemini_codec.py",),
    "providers/gemini/_config.py": ("providers/gemini/test_gemini_config.py",),
    "providers/gemini/_contents.py": (
        "providers/gemini/test_gemini_pending_context.py",
        "providers/gemini/test_gemini_tools.py",
    ),
    "providers/gemini/_decoder.py": (
        "providers/gemini/test_gemini_decoder.py",
        "providers/gemini/test_gemini_tools.py",
    ),
    "providers/gemini/_errors.py": ("providers/gemini/test_gemini_errors.py",),
    "providers/gemini/_manual_turns.py": ("providers/gemini/test_gemini_manual_turns.py",),
    "providers/gemini/_models.py": ("providers/gemini/test_gemini_config.py",),
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
    "providers/gemini/_text_contents.py": ("providers/gemini/test_gemini_llm.py",),
    "providers/gemini/_text_stream.py": ("providers/gemini/test_gemini_llm.py",),
    "providers/gemini/_text_thinking.py": ("providers/gemini/test_gemini_llm.py",),
    "providers/gemini/_usage.py": ("providers/gemini/test_gemini_decoder.py",),
    "providers/local/_draft.py": ("providers/local/test_local_draft.py",),
    "providers/openai/_session_json.py": (
        "providers/openai/test_openai_config.py",
        "providers/_openai_protocol/test_openai_codec.py",
    ),
    "providers/qwen/_codec.py": ("providers/qwen/test_qwen_codec.py",),
    "providers/qwen/_errors.py": ("providers/qwen/test_qwen_errors.py",),
    "providers/qwen/_requests.py": ("providers/qwen/test_qwen_codec.py",),
    "providers/qwen/_session_json.py": (
        "providers/qwen/test_qwen_config.py",
        "providers/qwen/test_qwen_codec.py",
    ),
    "realtime/_session/connections.py": (
        "realtime/_session/test_connections.py",
        "realtime/_session/test_connections_rollover.py",
    ),
    "realtime/_session/history_diff.py": ("realtime/_session/test_history_diff.py",),
    "realtime/_session/input_audio.py": ("realtime/_session/test_input_audio.py",),
    "realtime/_session/local_turns.py": ("realtime/_session/test_local_turns.py",),
    "realtime/_session/partial_transcripts.py": ("realtime/_session/test_partial_transcripts.py",),
    "realtime/_session/replay_buffer.py": ("realtime/_session/test_replay_buffer.py",),
    "realtime/_session/replayed_turns.py": ("realtime/_session/test_replayed_turns.py",),
    "realtime/_session/reply_scheduler.py": ("realtime/_session/test_reply_scheduler.py",),
    "realtime/_session/resume.py": ("realtime/_session/test_resume.py",),
    "realtime/_session/session.py": (
        "realtime/_session/test_session.py",
        "realtime/_session/test_session_outages.py",
        "realtime/_session/test_session_replies.py",
        "realtime/_session/test_session_tools.py",
    ),
    "realtime/_session/silence_monitor.py": ("realtime/_session/test_silence_monitor.py",),
    "realtime/_session/surrogates.py": ("realtime/_session/test_surrogates.py",),
    "realtime/_session/tool_calls.py": ("realtime/_session/test_tool_calls.py",),
    "realtime/_websocket_frames.py": ("realtime/test_websocket_frames.py",),
    "realtime/reply_slicer.py": ("realtime/test_reply_slicer.py",),
    "ray/_call_clock.py": ("ray_serve/test_call_clock.py",),
    "rtc/_rtcp.py": ("rtc/test_rtcp.py",),
    "rtc/jitter.py": ("rtc/test_jitter.py",),
    "server/_event_log.py": ("server/test_tickets.py",),
    "server/_lateness.py": ("server/test_lateness.py",),
    "server/tickets.py": ("server/test_tickets.py",),
    "vad/endpointing.py": ("vad/test_endpointing.py",),
    "vad/level_gate.py": ("vad/test_level_gate.py",),
    "vad/_noise_floor.py": ("vad/test_noise_floor.py",),
    "vad/preroll.py": ("vad/test_preroll.py",),
    "vad/voice_meter.py": ("vad/test_voice_meter.py",),
    "vad/words.py": ("vad/test_words.py",),
}
"""Test files, below ``tests``, by the path of their module below ``src/duologue``."""


class FileContexts:
    """A pytest plugin that tells coverage which file the running test belongs to."""

    def __init__(self, measurement: coverage.Coverage) -> None:
        self._measurement = measurement
        self._file: Path | None = None

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Run a test in the context of its file."""
        if item.path != self._file:
            self._file = item.path
            clear_caches()
        self._measurement.switch_context(context_of(str(item.path.relative_to(ROOT / "tests"))))
        try:
            return (yield)
        finally:
            self._measurement.switch_context("")


def clear_caches() -> None:
    """Clear the caches of measured functions, which would hide that a later test runs them."""
    for name, module in [*sys.modules.items()]:
        if name.startswith("duologue."):
            for value in [*vars(module).values()]:
                if callable(getattr(value, "cache_clear", None)):
                    value.cache_clear()


def context_of(test_file: str) -> str:
    """Return the name of a test file's context."""
    return f"file:{test_file}"


def run_tests(data_file: str, test_files: Sequence[str]) -> int:
    """Run test files in this process, and write what they cover to ``data_file``."""
    measurement = coverage.Coverage(
        data_file=data_file,
        branch=True,
        include=[str(ROOT / SOURCE / module) for module in TESTS],
        config_file=str(ROOT / "pyproject.toml"),
    )
    measurement.start()
    for module in TESTS:
        # Here, not in whichever test uses it first, because names are loaded when they are used.
        import_module(f"duologue.{module.removesuffix('.py').replace('/', '.')}")
    arguments = ["-q", "-p", "no:cacheprovider", *(f"tests/{name}" for name in test_files)]
    status = pytest.main(arguments, plugins=[FileContexts(measurement)])
    measurement.stop()
    measurement.save()
    return int(status)


def run_workers(folder: str, test_files: Sequence[str]) -> bool:
    """Run test files in one process per core; return whether all tests passed."""
    count = min(os.cpu_count() or 2, len(test_files))
    workers = [
        subprocess.Popen(  # noqa: S603 - our own script
            [sys.executable, __file__, "--worker", f"{folder}/data.{n}", *test_files[n::count]],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for n in range(count)
    ]
    passed = True
    for worker in workers:
        output, _ = worker.communicate()
        if worker.returncode:
            passed = False
            sys.stdout.write(output[-4000:])
    return passed


def measure(data_file: str, module: str, tests: Sequence[str]) -> tuple[float, str]:
    """Return how much of a module its tests cover, in %, and what is missing."""
    measurement = coverage.Coverage(data_file=data_file, config_file=str(ROOT / "pyproject.toml"))
    measurement.load()
    report = f"{data_file}.json"
    contexts = [f"^{re.escape(context_of(name))}$" for name in tests]
    path = str(ROOT / SOURCE / module)
    measurement.json_report([path], outfile=report, contexts=["^$", *contexts])
    (entry,) = json.loads(Path(report).read_text())["files"].values()
    lines = ", ".join(map(str, entry["missing_lines"])) or "none"
    branches = ", ".join(f"{a} -> {b}" for a, b in entry["missing_branches"]) or "none"
    return (
        entry["summary"]["percent_covered"],
        f"{'':11}lines not run: {lines}\n{'':11}branches not taken: {branches}\n",
    )


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
    chosen = [module for module in TESTS if not words or any(word in module for word in words)]
    test_files = list(dict.fromkeys(name for module in chosen for name in TESTS[module]))
    with tempfile.TemporaryDirectory() as folder:
        failed = not run_workers(folder, test_files) or bool(missing)
        combined = coverage.Coverage(data_file=f"{folder}/data")
        combined.combine([folder])
        combined.save()
        for module in chosen:
            percent, report = measure(f"{folder}/data", module, TESTS[module])
            sys.stdout.write(f"{percent:>7.1f} %  {module}\n")
            if percent < MIN_PERCENT:
                failed = True
                sys.stdout.write(report)
    return int(failed)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        sys.exit(run_tests(sys.argv[2], sys.argv[3:]))
    sys.exit(main(sys.argv[1:]))
