"""Run a recorded call again without its provider, and say where the messages differ.

`replay` makes the model, or streaming part, from the options in the wire journal. Its border
(`duologue.realtime.border.Border`) is played by the journal: the driver repeats the recorded
commands at the same times of a virtual clock, and returns the recorded results. All that goes out
is compared with what went out then.

What happened within one turn of the event loop then, happens within one turn now. Timers fire where
they fired then, because a loop under load calls them late. Random ids differ each time: the first
time that an id stands where another one stood, the two are taken to mean the same, in both
directions, and the messages of the journal are translated.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from duologue._user_code import describe
from duologue.errors import ConfigError, DuologueError
from duologue.json_types import JsonObject
from duologue.observe.call import RecordedCall
from duologue.observe.wire_journal import read_wire
from duologue.realtime.realtime import Realtime
from duologue.testing._replay_border import (
    ReplayBorder,
)
from duologue.testing._replay_driver import Driver
from duologue.testing._replay_subjects import SessionSubject, STTSubject, Subject, TTSSubject
from duologue.testing._wire_comparison import Difference, Replay, Sent
from duologue.testing._wire_script import Script
from duologue.testing.virtual_time import run_virtual


def replay(
    call: str | Path | RecordedCall, *, realtime: Callable[[], Realtime] | None = None
) -> Replay:
    """Run a call again that was recorded with ``wire=True``, without its provider.

    It takes no longer than computing does, because time is virtual. Don't call it on a running
    event loop.

    Args:
        call: The recorded call, or its folder.
        realtime: Makes the model, for one of your own class; its connections are never opened.

    Returns:
        What was found: no `Replay.differences` if this version of the program does the same.

    Raises:
        ConfigError: There is no wire journal, it is empty or damaged, or the model can't be made.
    """
    path = call.path if isinstance(call, RecordedCall) else Path(call)
    records = read_wire(path)
    found = Replay(path if path.is_dir() else path.parent)
    subjects: dict[int, list[JsonObject]] = {}
    for record in records:
        if isinstance(number := record.get("s"), int):
            subjects.setdefault(number, []).append(record)
        elif record.get("k") == "stop":
            found.skipped.append(f"the journal ends at {record.get('t')} s: {record.get('reason')}")
    if not subjects:
        raise ConfigError(f"{path} has nothing to replay: its wire journal is empty or damaged")
    names: Counter[str] = Counter()
    for log in subjects.values():
        name = str(log[0].get("subject"))
        names[name] += 1
        name = name if names[name] == 1 else f"{name} {names[name]}"
        if name.startswith("pipeline"):
            found.skipped.append("the pipeline itself is not replayed, only its streaming parts")
            continue
        try:
            script = Script(log)
        except (KeyError, TypeError, ValueError) as error:
            reason = error if isinstance(error, ValueError) else describe(error)
            raise ConfigError(f"{path}: the wire journal is damaged: {reason}") from error
        if name.startswith("session") and not script.dials:
            found.skipped.append(f"{name}: there was no connection to a service")
            continue
        run_virtual(_replay_subject(script, name, found, realtime), start=script.zero, grace=0.0)
    found.differences.sort(key=lambda one: one.at)
    return found


async def _replay_subject(
    script: Script, name: str, found: Replay, realtime: Callable[[], Realtime] | None
) -> None:
    subject: Subject
    border = ReplayBorder(script, name, found)
    match script.begin.get("subject"):
        case "session":
            subject = SessionSubject(border, realtime)
        case "stt":
            subject = STTSubject(border)
        case _:
            subject = TTSSubject(border)
    task = asyncio.create_task(subject.run(), name=f"replay of {name}")
    try:
        await Driver(border, subject, task).run()
    finally:
        task.cancel()
        await asyncio.wait([task])
    error = None if task.cancelled() else task.exception()
    if error is not None and not isinstance(error, DuologueError):
        raise error
    border.finish()


__all__ = ["Difference", "Replay", "Sent", "replay"]
