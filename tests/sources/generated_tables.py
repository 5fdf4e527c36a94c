"""Random tables of many types, written as hive-partitioned Parquet; every table comes from a printed seed."""

from __future__ import annotations

import datetime as dt
import random
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

WORDS = ["", "a", "snö", "naïve", "long " * 20, "O'Hare", 'q"uote', "line\nbreak"]
UTC = dt.UTC


def seeded() -> random.Random:
    """Return a random source whose seed is printed, so that a failure can be repeated."""
    seed = random.SystemRandom().randrange(10**9)
    print(f"seed {seed}")
    return random.Random(seed)


def frame(rng: random.Random, rows: int) -> pa.Table:
    """Return a table of all plain types with nulls in every column but the first."""

    def maybe(value: object) -> object:
        return None if rng.random() < 0.1 else value

    start = dt.datetime(2013, 1, 1, tzinfo=UTC)
    moments = [
        start + dt.timedelta(seconds=rng.randrange(10**8), microseconds=rng.randrange(10**6)) for _ in range(rows)
    ]
    columns = {
        "id": pa.array(range(rows), pa.int64()),
        "small": pa.array([maybe(rng.randrange(-100, 100)) for _ in range(rows)], pa.int16()),
        "big": pa.array([maybe(rng.randrange(-(2**60), 2**60)) for _ in range(rows)], pa.int64()),
        "ratio": pa.array([maybe(rng.uniform(-1e6, 1e6)) for _ in range(rows)], pa.float64()),
        "word": pa.array([maybe(rng.choice(WORDS)) for _ in range(rows)], pa.string()),
        "flag": pa.array([maybe(rng.random() < 0.5) for _ in range(rows)], pa.bool_()),
        "day": pa.array([maybe(moment.date()) for moment in moments], pa.date32()),
        "at": pa.array([maybe(moment) for moment in moments], pa.timestamp("us", "UTC")),
        "local": pa.array([maybe(moment.replace(tzinfo=None)) for moment in moments], pa.timestamp("us")),
        "price": pa.array([maybe(Decimal(rng.randrange(10**6)) / 100) for _ in range(rows)], pa.decimal128(12, 2)),
        "tags": pa.array(
            [maybe([rng.choice(WORDS) for _ in range(rng.randrange(4))]) for _ in range(rows)], pa.list_(pa.string())
        ),
        "place": pa.array(
            [maybe({"x": rng.randrange(9), "name": rng.choice(WORDS)}) for _ in range(rows)],
            pa.struct([("x", pa.int32()), ("name", pa.string())]),
        ),
    }
    return pa.table(columns)


def write_partitioned(rng: random.Random, table: pa.Table, folder: Path) -> list[int]:
    """Write the table below ``month=N`` folders, some of them in several files; return the months."""
    months = rng.sample(range(1, 13), rng.randrange(2, 7))
    bounds = sorted([0, table.num_rows, *rng.sample(range(1, table.num_rows), len(months) - 1)])
    for month, low, high in zip(months, bounds, bounds[1:], strict=False):
        here = folder / f"month={month}"
        here.mkdir(parents=True)
        part, files = table.slice(low, high - low), rng.randrange(1, 3)
        step = -(-part.num_rows // files)
        for index in range(files):
            piece = part.slice(index * step, step)
            pq.write_table(piece, here / f"part-{index}.parquet", row_group_size=rng.choice([50, 1000]))
    return months
