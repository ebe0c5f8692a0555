import asyncio
import dataclasses
import enum
import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from datetime import date
from functools import partial
from typing import Annotated, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from duologue.errors import ConfigError
from duologue.testing.virtual_time import virtual_time
from duologue.tools import ToolRegistry
from duologue.tools._registry import MAX_THREADS


class Unit(enum.Enum):
    CELSIUS = "c"
    FAHRENHEIT = "f"


@dataclasses.dataclass
class Place:
    city: str
    country: str = "FR"


class Guest(BaseModel):
    name: str
    age: Annotated[int, Field(ge=0)] = 0


class Folder(BaseModel):
    name: str
    inside: list["Folder"] = []


@pytest.fixture
def tools():
    return ToolRegistry()


def parameters(tools):
    (spec,) = tools.specs()
    return spec.parameters


def test_bare_decorator_reads_name_descriptions_and_types(tools):
    @tools.add
    async def weather(city: str, days: int = 1) -> str:
        """Tell the weather.

        For any place on Earth.

        Args:
            city: Where, in plain words.
            days: How many days ahead.
        """
        return f"{city} {days}"

    (spec,) = tools.specs()
    assert spec.name == "weather"
    assert spec.description == "Tell the weather.\n\nFor any place on Earth."
    assert spec.parameters == {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "Where, in plain words."},
            "days": {"type": "integer", "default": 1, "description": "How many days ahead."},
        },
        "required": ["city"],
        "additionalProperties": False,
    }


def test_sphinx_and_numpy_docstrings(tools):
    @tools.add
    def sphinx(city: str):
        """Weather.

        :param city: Where it is.
        """

    @tools.add
    def numpy(city: str):
        """Weather.

        Parameters
        ----------
        city : str
            Where it is.
        """

    for spec in tools.specs():
        assert spec.parameters["properties"]["city"]["description"] == "Where it is."
        assert spec.description == "Weather."


def test_every_kind_of_hint(tools):
    seen = {}

    @tools.add(name="every-kind")
    def every(
        maybe: int | None,
        unit: Unit,
        mode: Literal["fast", "slow"],
        place: Place,
        guests: list[Guest],
        when: date,
        note: Annotated[str, "A short note"] = "",
        size: Annotated[int, Field(gt=0, description="In boxes")] = 1,
        copy: bool = False,
    ):
        seen.update(locals())

    schema = parameters(tools)
    assert "title" not in json.dumps(schema)
    assert "$ref" not in json.dumps(schema)
    properties = schema["properties"]
    assert properties["maybe"] == {"anyOf": [{"type": "integer"}, {"type": "null"}]}
    assert properties["unit"] == {"enum": ["c", "f"], "type": "string"}
    assert properties["mode"] == {"enum": ["fast", "slow"], "type": "string"}
    assert properties["place"]["properties"]["country"] == {"type": "string", "default": "FR"}
    assert properties["place"]["additionalProperties"] is False
    assert properties["guests"]["items"]["required"] == ["name"]
    assert properties["when"] == {"format": "date", "type": "string"}
    assert properties["note"] == {"default": "", "description": "A short note", "type": "string"}
    assert properties["size"]["description"] == "In boxes"
    assert properties["size"]["exclusiveMinimum"] == 0
    assert schema["required"] == ["maybe", "unit", "mode", "place", "guests", "when"]

    arguments = {
        "maybe": None,
        "unit": "f",
        "mode": "slow",
        "place": {"city": "Paris"},
        "guests": [{"name": "Ann", "age": 4}],
        "when": "2026-01-02",
        "copy": True,
    }
    outcome = asyncio.run(tools.call("every-kind", json.dumps(arguments)))
    assert outcome.status == "done", outcome.output
    assert seen["unit"] is Unit.FAHRENHEIT
    assert seen["place"] == Place("Paris")
    assert seen["guests"] == [Guest(name="Ann", age=4)]
    assert seen["when"] == date(2026, 1, 2)
    assert seen["copy"] is True
    assert seen["size"] == 1


def test_recursive_type_stays_a_reference(tools):
    @tools.add
    def store(folder: Folder):
        pass

    schema = parameters(tools)
    assert set(schema["$defs"]) == {"Folder"}
    inner = schema["properties"]["folder"]["properties"]["inside"]["items"]
    assert inner == {"$ref": "#/$defs/Folder"}


def test_arguments_named_like_keywords_of_a_schema(tools):
    @tools.add
    def clip(title: str, properties: int, _private: str = "", schema: str = ""):
        return f"{title} {properties}"

    assert set(parameters(tools)["properties"]) == {"title", "properties", "_private", "schema"}
    outcome = asyncio.run(tools.call("clip", '{"title": "a", "properties": 3}'))
    assert outcome.output == "a 3"


async def test_methods_positional_only_and_local_types(tools):
    @dataclasses.dataclass
    class Local:
        n: int

    class House:
        async def open(self, door: "Local", /, wide: bool = False) -> str:
            return f"{door.n} {wide}"

    tools.add(House().open)
    outcome = await tools.call("open", '{"door": {"n": 2}, "wide": true}')
    assert (outcome.status, outcome.output) == ("done", "2 True")


def no_hint(city):
    pass


def stars(*cities: str):
    pass


def keywords(**cities: str):
    pass


def unknown_type(x: "Nowhere"):  # type: ignore[name-defined]  # noqa: F821
    pass


def generator(x: int):
    yield x


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        (no_hint, {}, "argument 'city' of tool 'no_hint' has no type hint"),
        (stars, {}, "can't take \\*args"),
        (keywords, {}, "can't take \\*args"),
        (unknown_type, {}, "type hint of tool 'unknown_type'.*Nowhere"),
        (generator, {}, "make it 'async def'"),
        (lambda: None, {}, "pass name="),
        (lambda: None, {"name": "a b"}, "'a b' must be"),
        (lambda: None, {"name": "x" * 65}, "must be 1 to 64"),
        (lambda: None, {"name": "x", "timeout": 0}, "timeout must be above 0 seconds"),
        (lambda: None, {"name": "x", "scheduling": "later"}, "scheduling must be silent"),
        ("text", {"name": "x"}, "must be a function"),
    ],
)
def test_registration_is_strict(tools, function, options, message):
    with pytest.raises(ConfigError, match=message) as caught:
        tools.add(function, **options)
    assert "\n" not in str(caught.value)
    assert len(tools) == 0


def test_types_without_json_are_refused(tools):
    class Thing:
        pass

    def take(thing: Thing):
        pass

    with pytest.raises(ConfigError, match="tool 'take' has an argument that JSON can't carry"):
        tools.add(take)


def test_duplicate_name_is_rejected(tools):
    def ping():
        pass

    tools.add(ping)
    with pytest.raises(ConfigError, match="a tool named 'ping' already"):
        tools.add(ping)
    tools.add(ping, name="pong")
    assert [spec.name for spec in tools.specs()] == ["ping", "pong"]
    assert "pong" in tools
    assert tools.get("unknown") is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("{}", "city: is required"),
        ('{"city": 3}', "city: input should be a valid string, not 3"),
        ('{"city": "x", "unit": "k"}', "unit: input should be 'c' or 'f', not 'k'"),
        ('{"city": "x", "when": 1}', "when: is not an argument of this tool"),
        ('{"city": "' + "y" * 999, "not JSON"),
        ("[1]", "not a JSON object"),
        ("null", "city: is required"),
        ("", "city: is required"),
        ('"no object"', "not JSON"),
    ],
)
async def test_wrong_arguments_give_the_model_a_message(tools, arguments, message):
    @tools.add
    def weather(city: str, unit: Unit = Unit.CELSIUS):
        pytest.fail("it must not run")

    outcome = await tools.call("weather", arguments)
    assert outcome.status == "failed"
    assert message in outcome.output
    assert outcome.output.endswith(("fit.", "object."))
    assert len(outcome.output) < 300


@settings(max_examples=60, deadline=None)
@given(
    st.text(max_size=30) | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(repr)
)
def test_no_arguments_make_call_raise(arguments):
    tools = ToolRegistry()
    tools.add(lambda: 1, name="one")
    outcome = asyncio.run(tools.call("one", arguments))
    assert outcome.status in ("done", "failed")


async def test_unknown_tool_lists_the_known_ones(tools):
    tools.add(lambda: 1, name="one")
    outcome = await tools.call("two", "{}")
    assert outcome.output == "There is no tool named 'two'. Tools: one."


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ("plain", "plain"),
        (None, "done"),
        ({"a": 1}, '{"a":1}'),
        (Place("Rome", "IT"), '{"city":"Rome","country":"IT"}'),
        (Guest(name="Ann"), '{"name":"Ann","age":0}'),
        ([date(2026, 1, 2), Unit.CELSIUS, float("nan")], '["2026-01-02","c",null]'),
        (True, "true"),
        ("caf\udce9.txt", "caf?.txt"),
    ],
)
async def test_results_become_text(tools, result, text):
    @tools.add
    async def give():
        return result

    outcome = await tools.call("give", "{}")
    assert (outcome.status, outcome.output) == ("done", text)
    assert outcome.seconds >= 0


async def test_results_without_json_or_too_long_fail(tools):
    loop = []
    loop.append(loop)
    tools.add(lambda: object(), name="thing")
    tools.add(lambda: loop, name="loop")
    tools.add(lambda: "ü" * 20000, name="long")
    for name, message in (
        ("thing", "(object) can't be written as JSON"),
        ("loop", "(list) can't be written as JSON"),
        ("long", "too long: 40000 bytes, at most 32768"),
    ):
        outcome = await tools.call(name, "{}")
        assert outcome.status == "failed"
        assert message in outcome.output


async def test_surrogates_in_results_are_replaced(tools):
    async def parts():
        yield "caf\udce9"

    def broken():
        raise OSError("no caf\udce9")

    tools.add(parts)
    tools.add(broken)
    partials = []
    outcomes = [await tools.call("parts", "{}", partials.append), await tools.call("broken", "{}")]
    outcomes.append(await tools.call("\udce9", "{}"))
    for text in (*partials, *(outcome.output for outcome in outcomes)):
        text.encode()
    assert partials == ["caf?"]


async def test_failing_tool_is_an_outcome(tools, caplog):
    @tools.add
    def broken():
        raise KeyError("gone")

    with caplog.at_level(logging.WARNING):
        outcome = await tools.call("broken", "{}")
    assert (outcome.status, outcome.output) == ("failed", "The tool failed: KeyError: 'gone'")
    assert "tool broken failed" in caplog.text


@virtual_time
async def test_timeout_and_the_tools_own_timeout_error_differ():
    tools = ToolRegistry()

    @tools.add(timeout=2)
    async def slow():
        await asyncio.sleep(3)

    @tools.add
    async def network():
        raise TimeoutError("no answer")

    outcome = await tools.call("slow", "{}")
    assert (outcome.status, outcome.output) == (
        "timeout",
        "The tool took longer than 2 seconds.",
    )
    assert asyncio.get_running_loop().time() == 2
    assert (await tools.call("network", "{}")).status == "failed"


@virtual_time
async def test_cancelling_the_caller_cancels_the_tool_and_only_that_raises():
    tools = ToolRegistry()
    ended = []

    @tools.add
    async def slow():
        try:
            await asyncio.sleep(3)
        finally:
            ended.append(True)

    @tools.add
    async def gives_up():
        raise asyncio.CancelledError

    task = asyncio.create_task(tools.call("slow", "{}"))
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == [True]
    assert (await tools.call("gives_up", "{}")).status == "cancelled"


async def test_sync_functions_do_not_block_the_event_loop(tools):
    tools.add(lambda: time.sleep(0.2), name="nap")
    ticks = 0

    async def tick():
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    task = asyncio.create_task(tick())
    await tools.call("nap", "{}")
    task.cancel()
    assert ticks >= 8


def test_importing_tools_does_not_import_pydantic():
    code = (
        "import sys, duologue.tools; "
        "assert not {'pydantic', 'docstring_parser'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


async def test_async_generator_yields_partial_results_and_the_last_is_the_result(tools):
    @tools.add(scheduling="when_idle")
    async def book(room: str) -> AsyncIterator[str]:
        yield "asking"
        yield {"room": room}  # type: ignore[misc]
        yield "booked"

    @tools.add
    async def nothing() -> AsyncIterator[str]:
        for one in tuple[str, ...]():
            yield one

    parts = []
    outcome = await tools.call("book", '{"room": "7"}', parts.append)
    assert (outcome.status, outcome.output) == ("done", "booked")
    assert parts == ["asking", '{"room":"7"}', "booked"]
    assert (await tools.call("book", '{"room": "7"}')).output == "booked"
    assert (await tools.call("nothing", "{}", parts.append)).output == "done"
    assert [spec.scheduling for spec in tools.specs()] == ["when_idle", None]


async def test_generator_is_closed_at_its_timeout(tools):
    closed = []

    @tools.add(timeout=0.01)
    async def slow() -> AsyncIterator[str]:
        try:
            yield "begun"
            await asyncio.sleep(60)
        finally:
            closed.append(True)
        yield "done"

    parts = []
    outcome = await tools.call("slow", "{}", parts.append)
    assert (outcome.status, closed) == ("timeout", [True])
    assert parts == ["begun"]


@pytest.mark.parametrize("arguments", ["{}", "", "  ", "null", '""', '"{}"', "[]", "None"])
async def test_tool_without_arguments_is_called_whatever_a_model_writes_for_none(tools, arguments):
    @tools.add
    async def opening_hours() -> str:
        return "nine to five"

    outcome = await tools.call("opening_hours", arguments)
    assert (outcome.status, outcome.output) == ("done", "nine to five")


async def test_arguments_in_a_json_string_are_unpacked(tools):
    @tools.add
    async def weather(city: str) -> str:
        return city

    outcome = await tools.call("weather", json.dumps('{"city": "Oslo"}'))
    assert (outcome.status, outcome.output) == ("done", "Oslo")


class UnwritableError(Exception):
    def __str__(self):
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    "error",
    [
        StopIteration(),
        SystemExit(2),
        KeyboardInterrupt(),
        GeneratorExit(),
        BaseException("odd"),
        UnwritableError(),
        ExceptionGroup("two", [ValueError("a"), ValueError("b")]),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("kind", ["plain", "async", "generator"])
async def test_any_exception_of_a_tool_fails_at_once(tools, kind, error):
    def plain() -> str:
        raise error

    async def coroutine() -> str:
        raise error

    async def generator() -> AsyncIterator[str]:
        yield "a part"
        raise error

    tools.add({"plain": plain, "async": coroutine, "generator": generator}[kind], name="odd")
    async with asyncio.timeout(2):
        outcome = await tools.call("odd", "{}")
    assert outcome.status == "failed"
    assert type(error).__name__ in outcome.output


async def test_stuck_plain_tool_blocks_no_other_call(tools):
    release = threading.Event()

    @tools.add(timeout=0.05)
    def stuck() -> None:
        release.wait(20)

    @tools.add
    def quick() -> str:
        return "here"

    try:
        outcomes = await asyncio.gather(*(tools.call("stuck", "{}") for _ in range(40)))
        assert {outcome.status for outcome in outcomes} == {"timeout"}
        assert (await tools.call("quick", "{}")).output == "here"
        for _ in range(MAX_THREADS - 40):
            await tools.call("stuck", "{}")
        refused = await tools.call("quick", "{}")
        assert refused.status == "failed"
        assert f"{MAX_THREADS} earlier calls have not returned" in refused.output
        assert (await ToolRegistry().call("stuck", "{}")).status == "failed"
    finally:
        release.set()


def test_program_ends_while_a_plain_tool_is_stuck():
    code = """
import asyncio, time
from duologue.tools import ToolRegistry

tools = ToolRegistry()
tools.add(lambda: time.sleep(60), name="stuck", timeout=0.1)
print(asyncio.run(tools.call("stuck", "{}")).status)
"""
    started = time.perf_counter()
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "timeout\n"
    assert time.perf_counter() - started < 30


async def test_partial_functions_and_objects_are_tools(tools):
    def book(hotel: str, room: int, nights: int = 1) -> str:
        """Book a room.

        Args:
            room: Its number.
        """
        return f"{hotel} {room} {nights}"

    class Weather:
        """The weather."""

        async def __call__(self, city: str) -> str:
            return f"{city}: sunny"

    class Clock:
        def __call__(self, zone: str) -> str:
            """Tell the time."""
            return f"{zone}: noon"

    async def wait(seconds: float) -> str:
        return f"{seconds}"

    tools.add(partial(book, "Ritz", nights=2))
    tools.add(Weather(), name="weather")
    tools.add(Clock())
    tools.add(partial(wait, 0.0))
    tools.add(partial(partial(book, room=1), nights=3), name="again")
    book_spec, weather, clock, _, again = tools.specs()
    assert (book_spec.name, book_spec.description) == ("book", "Book a room.")
    assert book_spec.parameters["properties"] == {
        "room": {"type": "integer", "description": "Its number."}
    }
    assert weather.description == "The weather."
    assert clock.name == "Clock"
    assert list(again.parameters["properties"]) == ["hotel"]
    calls = [
        ("book", {"room": 7}, "Ritz 7 2"),
        ("weather", {"city": "Oslo"}, "Oslo: sunny"),
        ("Clock", {"zone": "cet"}, "cet: noon"),
        ("wait", {}, "0.0"),
        ("again", {"hotel": "Ritz"}, "Ritz 1 3"),
    ]
    for name, arguments, output in calls:
        outcome = await tools.call(name, json.dumps(arguments))
        assert (outcome.status, outcome.output) == ("done", output)


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (np.float32(0.5), "0.5"),
        (np.int64(3), "3"),
        (np.bool_(True), "true"),
        (np.array([[1, 2], [3, 4]]), "[[1,2],[3,4]]"),
        ({"mean": np.float64(2.0), "all": [np.arange(2)]}, '{"mean":2.0,"all":[[0,1]]}'),
        (np.array([1.0, np.nan]), "[1.0,null]"),
        (np.str_("text"), "text"),
    ],
    ids=repr,
)
async def test_numpy_results_become_json(tools, result, text):
    tools.add(lambda: result, name="measure")
    outcome = await tools.call("measure", "{}")
    assert (outcome.status, outcome.output) == ("done", text)


async def test_result_that_fails_to_serialize_is_a_failure(tools):
    class Trap:
        def tolist(self):
            raise RuntimeError("closed")

    tools.add(lambda: [Trap()], name="trap")
    assert (await tools.call("trap", "{}")).status == "failed"


async def test_removed_tool_is_unknown_and_its_running_call_ends_as_usual(tools):
    release = asyncio.Event()

    @tools.add
    async def look() -> str:
        await release.wait()
        return "seen"

    call = asyncio.create_task(tools.call("look", "{}"))
    await asyncio.sleep(0)
    tools.remove("look")
    assert "look" not in tools
    assert not tools.specs()
    assert (await tools.call("look", "{}")).status == "failed"
    release.set()
    assert (await call).output == "seen"
    with pytest.raises(ConfigError, match="no tool named 'look'; registered: none"):
        tools.remove("look")
