"""The table of ``duologue batch``: a file that grows by the rows of one recording after another.

A CSV file is appended to. Parquet can't be, so the rows go to ``TABLE.parquet.rows.csv`` until the
end, and that file is there only while the command runs, or after it was killed.

A recording is in the table if all of its rows with the same model are: the column ``turns`` has
their number. So the rows of a recording that was being written when the process was killed are
dropped, and the recording is not skipped.
"""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import asdict, fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from duologue._optional import import_optional
from duologue.batch import Row
from duologue.errors import ConfigError

_COLUMNS = [field.name for field in fields(Row)]


def _optional_number(text: str) -> float | None:
    return float(text) if text else None


_READ: dict[str, Callable[[str], object]] = {
    "str": str,
    "int": int,
    "bool": {"True": True, "False": False}.__getitem__,
    "float | None": _optional_number,
}
"""Reads a cell, by the annotation of its column."""


class BatchTable:
    """A table file, with the rows of earlier runs.

    Args:
        path: A ``.csv`` or ``.parquet`` file, which may exist.
        model: What talks now. Rows of other models stay, and count for nothing else.

    Raises:
        ConfigError: The file is not such a table, or can't be read or written.
        MissingExtraError: The file is Parquet, and the extra ``parquet`` is not installed.
    """

    def __init__(self, path: Path, model: str = "") -> None:
        self.path = path
        self._model = model
        self._parquet: ModuleType | None = None
        match path.suffix.lower():
            case ".csv":
                self._journal = path
            case ".parquet":
                self._parquet = import_optional("pyarrow.parquet", "parquet")
                self._journal = path.with_name(path.name + ".rows.csv")
            case _:
                raise ConfigError(f"the table must be a .csv or .parquet file, not {path}")
        try:
            self.rows = self._read()
            self._write_journal()
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise ConfigError(f"can't use {path}: {reason}") from error

    @property
    def files(self) -> set[str]:
        """The recordings that are in the table with this model."""
        return {row.file for row in self.rows if row.model == self._model}

    @property
    def failed(self) -> set[str]:
        """The recordings in the table whose conversation with this model failed."""
        return {row.file for row in self.rows if row.error and row.model == self._model}

    def drop(self, files: Collection[str]) -> None:
        """Remove the rows of recordings with this model."""
        self.rows = [row for row in self.rows if row.file not in files or row.model != self._model]
        self._write_journal()

    def append(self, rows: Sequence[Row]) -> None:
        """Add all rows of one recording; they are in the file when this returns.

        Raises:
            ConfigError: The file can't be written.
        """
        rows = [replace(row, model=self._model) for row in rows]
        self.rows += rows
        try:
            with self._journal.open("a", encoding="utf-8", newline="") as file:
                file.write(_to_csv(rows))
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise ConfigError(f"can't write {self._journal}: {reason}") from error

    def close(self) -> None:
        """Write the Parquet file."""
        if self._parquet is None:
            return
        arrow = import_optional("pyarrow", "parquet")
        types = {"str": "string", "int": "int64", "bool": "bool_", "float | None": "float64"}
        schema = arrow.schema(
            [(field.name, getattr(arrow, types[str(field.type)])()) for field in fields(Row)]
        )
        table = arrow.Table.from_pylist([asdict(row) for row in self.rows], schema=schema)
        part = self.path.with_name(self.path.name + ".part")
        self._parquet.write_table(table, part)
        os.replace(part, self.path)
        self._journal.unlink(missing_ok=True)

    def _read(self) -> list[Row]:
        rows: list[Row] = []
        if self._parquet is not None and self.path.exists():
            rows += self._read_parquet(self._parquet)
        if self._journal.exists():
            found = self._read_csv(self._journal)
            new = {(row.file, row.model) for row in found}
            rows = [row for row in rows if (row.file, row.model) not in new] + found
        counts = Counter((row.file, row.model) for row in rows)
        return [row for row in rows if counts[row.file, row.model] == row.turns]

    def _read_parquet(self, parquet: ModuleType) -> list[Row]:
        try:
            table = parquet.read_table(self.path).to_pylist()
            return [Row(**line) for line in table]
        except (ValueError, TypeError) as error:
            raise self._no_table() from error

    def _read_csv(self, path: Path) -> list[Row]:
        with path.open(encoding="utf-8", newline="") as file:
            lines = csv.reader(file)
            header = next(lines, None)
            if header is not None and header != _COLUMNS:
                raise self._no_table()
            rows = []
            for cells in lines:
                # The last line may be torn.
                with suppress(KeyError, ValueError):
                    rows.append(_from_cells(cells))
            return rows

    def _no_table(self) -> ConfigError:
        return ConfigError(f"{self.path} is not a table of duologue batch: choose another file")

    def _write_journal(self) -> None:
        """Write all rows again, so that the file has complete recordings only."""
        part = self._journal.with_name(self._journal.name + ".part")
        with part.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow(_COLUMNS)
            file.write(_to_csv(self.rows))
        os.replace(part, self._journal)


def _to_csv(rows: Sequence[Row]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(asdict(row).values() for row in rows)
    return text.getvalue()


def _from_cells(cells: Sequence[str]) -> Row:
    if len(cells) != len(_COLUMNS):
        raise ValueError(f"{len(cells)} cells")
    values: dict[str, Any] = {
        field.name: _READ[str(field.type)](cell)
        for field, cell in zip(fields(Row), cells, strict=True)
    }
    return Row(**values)
