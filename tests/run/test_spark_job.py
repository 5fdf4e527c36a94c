from __future__ import annotations

import pickle
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.run.conftest import Start
from tests.run.test_wrapper import CODE, NAME, notebook
from tests.support.job_api import JobApi
from torpor_hub.supervisor import java

CELLS = """
LIMIT = 2
def big(row): return row["x"] > LIMIT
def main(path, spark=None):
    frame = spark.read.parquet(path)
    rows = frame.rdd.filter(big).map(lambda row: row["x"]).collect()
    context = spark.sparkContext
    print("cores", context.defaultParallelism)
    return {"rows": sorted(rows), "count": frame.count(), "master": context.master, "name": context.appName}
"""


@pytest.mark.slow
def test_a_spark_job_reads_parquet_and_runs_python_on_its_workers(api: JobApi, start: Start, tmp_path: Path) -> None:
    file = tmp_path / "numbers.parquet"
    pq.write_table(pa.table({"x": [1, 2, 3, 4]}), file)
    bundle = notebook(f"{CELLS}\nargs = ({str(file)!r},)")
    amount = {"cpu_milli": 2000, "memory_bytes": 2 * 1024**3, "gpu_count": 0}
    api.add(NAME, CODE, bundle=bundle, kind="spark", amount=amount, name="numbers")
    assert start(JAVA_HOME=str(java.home(tmp_path))).wait(120) == 0
    assert pickle.loads(api.results[NAME]) == {
        "value": {"rows": [3, 4], "count": 4, "master": "local[2]", "name": "numbers"}
    }
    assert "cores 2\n" in api.log(NAME)
    assert api.exits[NAME]["exit_code"] == 0
