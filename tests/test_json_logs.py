"""Log records as JSON: ids of calls, errors without their text."""

import asyncio
import json
import logging

import pytest

from duologue._json_logs import JsonLogFormatter, call_context
from duologue._user_code import log_failure


@pytest.fixture
def lines():
    written: list[dict] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            line = self.format(record)
            assert "\n" not in line
            written.append(json.loads(line))

    handler = Handler()
    handler.setFormatter(JsonLogFormatter())
    log = logging.getLogger("test.json")
    log.addHandler(handler)
    yield written
    log.removeHandler(handler)


log = logging.getLogger("test.json")


def test_a_record_is_one_object(lines):
    log.warning("%d calls\nended", 3)
    (line,) = lines
    assert line["message"] == "3 calls\nended"
    assert (line["level"], line["logger"]) == ("warning", "test.json")
    assert line["time"].endswith("+00:00")
    assert "session" not in line


async def test_tasks_of_a_call_log_its_id(lines):
    async def work(word: str) -> None:
        await asyncio.sleep(0)
        log.warning(word)

    with call_context("one"):
        first = asyncio.create_task(work("a"))
    with call_context("two"):
        second = asyncio.create_task(work("b"))
    await asyncio.gather(first, second)
    log.warning("c")
    assert [(line["message"], line.get("session")) for line in lines] == [
        ("a", "one"),
        ("b", "two"),
        ("c", None),
    ]


def test_the_text_of_an_error_is_left_out(lines):
    def tool() -> None:
        raise ValueError("my number is\n 555")

    for report in (
        lambda error: log_failure(log, "a tool", error),
        lambda error: log.error("it failed", exc_info=error),
    ):
        try:
            tool()
        except ValueError as error:
            report(error)
    assert "555" not in json.dumps(lines)
    assert [line["message"] for line in lines] == ["a tool failed: ValueError: ...", "it failed"]
    for line in lines:
        assert line["error"] == "ValueError"
        assert line["stack"][-1].endswith(" tool")


def test_an_error_without_a_text_keeps_the_message(lines):
    try:
        raise ValueError
    except ValueError:
        log.exception("failed: %s", "why")
    assert lines[0]["message"] == "failed: why"
    log.error("no error is being handled", exc_info=True)  # noqa: LOG014
    assert "error" not in lines[1]
