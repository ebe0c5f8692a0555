"""``duologue batch``: tables that grow, survive and are continued."""

import csv
import sys

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from duologue.batch import Row
from duologue.cli import main
from duologue.cli.batch import find_recordings, summary
from duologue.cli.batch_table import BatchTable

APP = """
from duologue import Agent
from duologue.testing import ScriptedRealtime

calls = []

def make_agent(edge):
    calls.append(edge)
    if len(calls) in STOP:
        raise KeyboardInterrupt
    return Agent(edge=edge, llm=ScriptedRealtime(["At nine."], transcripts=["When?"]))

async def conduct(edge):
    async with make_agent(edge).join() as agent:
        await agent.finish()

STOP = ()
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "batchapp.py").write_text(APP)
    (tmp_path / "calls/more").mkdir(parents=True)
    tone = 0.4 * np.sin(2 * np.pi * 300 * np.arange(8000) / 16000)
    for name in ("a.wav", "b.FLAC", "more/c.wav"):
        soundfile.write(tmp_path / "calls" / name, tone, 16000)
    (tmp_path / "calls/notes.txt").write_text("none")
    yield tmp_path
    sys.modules.pop("batchapp", None)


def batch(*args, app="batchapp:make_agent"):
    command = ["batch", app, "calls", "--fast", *map(str, args)]
    return CliRunner().invoke(main, command)


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def row(file="a", turn=1, **values):
    return Row(file=file, turn=turn, **values)


def test_a_table_has_a_row_for_each_turn_and_is_not_made_again(folder):
    result = batch("--out", "t.csv", "--jobs", 2)
    assert result.exit_code == 0, result.output
    assert result.output == (
        "3 conversations, 3 turns, 0 interruptions, 0 tool calls, 0 tokens in, 0 out.\n"
    )
    rows = read("t.csv")
    assert {each["file"] for each in rows} == {"calls/a.wav", "calls/b.FLAC", "calls/more/c.wav"}
    assert {(each["user"], each["agent"]) for each in rows} == {("When?", "At nine.")}
    assert {each["first_played_ms"] for each in rows} == {""}  # time was virtual

    (folder / "calls/d.wav").write_text("no audio")
    again = batch("--out", "t.csv")
    assert again.exit_code == 1
    assert again.output.startswith("3 recordings of 4 in t.csv already.\n4 conversations, 3 turns")
    assert again.output.endswith("1 conversation failed: calls/d.wav (--retry tries again)\n")
    assert read("t.csv")[:3] == rows
    assert len(sys.modules["batchapp"].calls) == 3

    assert batch("--out", "t.csv", "--quiet").output == ""
    soundfile.write(folder / "calls/d.wav", np.full(8000, 0.4), 16000)
    assert batch("--out", "t.csv", "--retry").exit_code == 0
    assert [each["error"] for each in read("t.csv")] == [""] * 4


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_another_model_has_rows_of_its_own_in_the_same_table(folder, name):
    (folder / "batchapp.py").write_text(APP + "\nmake_other = lambda edge: make_agent(edge)\n")
    for app in ("make_agent", "make_other"):
        result = batch("--out", name, app=f"batchapp:{app}")
        assert result.exit_code == 0, result.output
        assert result.output.startswith("3 conversations, 3 turns,")
    again = batch("--out", name, "--retry")
    assert again.output.startswith(f"3 recordings of 3 in {name} already.\n3 conversations,")
    rows = BatchTable(folder / name).rows
    assert [row.model for row in rows] == ["batchapp:make_agent"] * 3 + ["batchapp:make_other"] * 3
    assert len({row.file for row in rows}) == 3


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_after_ctrl_c_the_same_command_continues(folder, name):
    (folder / "batchapp.py").write_text(APP.replace("STOP = ()", "STOP = (2,)"))
    stopped = batch("--out", name)
    assert stopped.exit_code == 130
    assert stopped.stderr == (
        f"\nStopped. 1 of 3 recordings in {name}; the same command continues.\n"
    )
    result = batch("--out", name)
    assert result.exit_code == 0, result.output
    assert result.output.startswith(f"1 recording of 3 in {name} already.\n3 conversations")
    assert {row.file for row in BatchTable(folder / name).rows} == {
        "calls/a.wav",
        "calls/b.FLAC",
        "calls/more/c.wav",
    }


def test_parquet_has_the_types_of_the_columns(folder):
    parquet = pytest.importorskip("pyarrow.parquet")
    assert batch("--out", "t.parquet").exit_code == 0
    table = parquet.read_table("t.parquet")
    types = {field.name: str(field.type) for field in table.schema}
    assert types["turn"] == "int64"
    assert types["interrupted"] == "bool"
    assert types["first_played_ms"] == "double"
    assert table.num_rows == 3
    assert {path.name for path in folder.iterdir()} == {"batchapp.py", "calls", "t.parquet"} | (
        {"__pycache__"} if (folder / "__pycache__").exists() else set()
    )


def test_parquet_without_its_extra_is_one_line(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    result = batch("--out", "t.parquet")
    assert result.exit_code == 2
    assert result.output == (
        "duologue: pyarrow is not installed: pip install 'duologue[parquet]'\n"
    )


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_a_killed_run_leaves_whole_recordings(tmp_path, name):
    path = tmp_path / name
    table = BatchTable(path)
    table.append([row("a", 1, turns=2, user='say "hi",\nplease'), row("a", 2, turns=2)])
    table.append([row("b", first_played_ms=3.5, interrupted=True)])
    journal = path if name == "t.csv" else tmp_path / "t.parquet.rows.csv"
    whole = journal.read_bytes()
    lost = [row("c", 1, turns=2), row("c", 2, turns=2, user="torn")]
    table.append(lost)
    torn = journal.read_bytes()
    # Killed at any byte of the last recording.
    for length in range(len(whole), len(torn)):
        journal.write_bytes(torn[:length])
        assert BatchTable(path).files in ({"a", "b"}, {"a", "b", "c"})
    journal.write_bytes(torn[: len(whole) + 12])
    table = BatchTable(path)
    assert table.rows == [
        row("a", 1, turns=2, user='say "hi",\nplease'),
        row("a", 2, turns=2),
        row("b", first_played_ms=3.5, interrupted=True),
    ]
    assert journal.read_bytes() == whole
    table.close()
    assert BatchTable(path).rows == table.rows


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["calls", "--out", "t.xls"], "the table must be a .csv or .parquet file, not t.xls"),
        (["calls", "--out", "other.csv"], "other.csv is not a table of duologue batch"),
        (["calls", "--out", "bad.parquet"], "bad.parquet is not a table of duologue batch"),
        (["calls", "--out", "none/t.csv"], "can't use none/t.csv: no such file or directory"),
        (["nothing", "--out", "t.csv"], "can't read nothing: no such file or directory"),
        (["empty", "--out", "t.csv"], "there is no recording"),
        (["calls", "--out", "t.csv", "--llm", "openai"], "--fast needs a model in this process"),
    ],
)
def test_what_cannot_be_used_is_one_line_and_exit_code_2(folder, args, message):
    (folder / "empty").mkdir()
    (folder / "other.csv").write_text("a,b\n1,2\n")
    (folder / "bad.parquet").write_text("PAR?")
    result = CliRunner().invoke(main, ["batch", "--fast", *args])
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert (folder / "other.csv").read_text() == "a,b\n1,2\n"


def test_a_function_that_conducts_the_conversation_is_an_error_of_each_row(folder):
    result = batch("--out", "t.csv", app="batchapp:conduct")
    assert result.exit_code == 1
    assert all("must return an Agent here" in each["error"] for each in read("t.csv"))


def test_a_full_disk_ends_the_run_with_one_line(folder, monkeypatch):
    monkeypatch.setattr(BatchTable, "_write_journal", lambda table: None)
    (folder / "t.csv").symlink_to("/dev/full")
    monkeypatch.setattr(BatchTable, "_read", lambda table: [])
    result = batch("--out", "t.csv")
    assert result.exit_code == 2
    assert result.stderr == "duologue: can't write t.csv: no space left on device\n"


def test_recordings_are_found_once_and_in_order(folder):
    found = find_recordings([folder / "calls/more/c.wav", folder / "calls"])
    assert [path.rpartition("/")[2] for path in found] == ["c.wav", "a.wav", "b.FLAC"]


def test_the_summary_has_percentiles_of_the_latencies():
    rows = [row(str(n), first_played_ms=float(n), endpoint_ms=200.0) for n in range(101)]
    rows.append(row("greeting", 0, first_played_ms=9999.0, input_tokens=12345))
    assert summary(rows).splitlines() == [
        "102 conversations, 101 turns, 0 interruptions, 0 tool calls, 12,345 tokens in, 0 out.",
        "first sound: p50 50, p90 90, p99 99 ms after the end of speech.",
        "end of turn: p50 200, p90 200, p99 200 ms after the end of speech.",
    ]
