"""Records as rows of a Parquet file, and back; needs pyarrow.

    topic string, partition int32, offset int64, timestamp timestamp[ms, UTC],
    key binary, value binary, headers list<struct<name string, value binary>>
"""

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pylog._native import Record
from pylog.envelope import BadLine, Columns, home_of

ROWS_A_BATCH = 4096
ROWS_A_GROUP = 65536


def need_pyarrow() -> Any:
    """The module. Raises BadLine with how to get it."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise BadLine("Parquet needs pyarrow: pip install pyarrow, or export and import JSON lines "
                      "(a name that does not end in .parquet)") from None
    return pyarrow


def make_schema(pa: Any) -> Any:
    header = pa.struct([("name", pa.string()), ("value", pa.binary())])
    return pa.schema([
        ("topic", pa.string()), ("partition", pa.int32()), ("offset", pa.int64()),
        ("timestamp", pa.timestamp("ms", "UTC")), ("key", pa.binary()), ("value", pa.binary()),
        ("headers", pa.list_(header))])


class ParquetWriter:
    """Takes lists of records. The file is whole when it is closed."""

    def __init__(self, path: Path) -> None:
        self.pa = need_pyarrow()
        self.schema = make_schema(self.pa)
        self.file = self.pa.parquet.ParquetWriter(path, self.schema, compression="zstd")
        self.rows: list[Record] = []

    def write(self, records: list[Record]) -> None:
        self.rows += records
        if len(self.rows) >= ROWS_A_GROUP:
            self._flush()

    def _flush(self) -> None:
        rows, self.rows = self.rows, []
        columns = [
            [one.topic for one in rows], [one.partition for one in rows],
            [one.offset for one in rows], [one.timestamp for one in rows],
            [one.key for one in rows], [one.value for one in rows],
            [[{"name": name, "value": value} for name, value in one.headers] for one in rows]]
        self.file.write_table(self.pa.table(
            [self.pa.array(column, field.type)
             for column, field in zip(columns, self.schema, strict=True)], schema=self.schema))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if self.rows and kind is None:
            self._flush()
        self.file.close()


def read_parquet(path: str) -> Iterator[Columns]:
    """The records of a file, in batches. Only `value` must be there. Raises BadLine."""
    pa = need_pyarrow()
    try:
        file = pa.parquet.ParquetFile(path)
        there = set(file.schema_arrow.names)
        if "value" not in there:
            raise BadLine(f"{path} has no column \"value\"; there is {', '.join(sorted(there))}")
        wanted = [field for field in make_schema(pa) if field.name in there]
        names = [field.name for field in wanted]
        for batch in file.iter_batches(ROWS_A_BATCH, columns=names):
            whole = pa.Table.from_batches([batch]).select(names).cast(pa.schema(wanted))
            yield _columns(pa, whole)
    except pa.ArrowException as error:
        raise BadLine(f"{path} is no Parquet file of records: {str(error).splitlines()[0]}") \
            from None


def _columns(pa: Any, table: Any) -> Columns:
    def column(name: str) -> list[Any]:
        return list(table[name].to_pylist()) if name in table.column_names else [None] * len(table)

    columns = Columns(values=column("value"))
    columns.keys = column("key")
    columns.headers = [[(one["name"], one["value"]) for one in heads or ()]
                       for heads in column("headers")]
    try:
        columns.homes = [home_of(topic, partition) for topic, partition in
                         zip(column("topic"), column("partition"), strict=True)]
    except ValueError as error:
        raise BadLine(str(error)) from None
    if "timestamp" in table.column_names and not table["timestamp"].null_count:
        columns.timestamps = table["timestamp"].cast(pa.int64()).to_pylist()
    return columns
