"""The api's process holds no connector: nothing in it could ask a store, even by mistake."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

CONNECTORS = [
    *("pyarrow.dataset", "pyarrow._dataset", "duckdb", "pandas", "torpor_hub.sources", "torpor_hub.importer"),
    *(
        "pymongo",
        "redis",
        "pymysql",
        "oracledb",
        "pymssql",
        "cassandra",
        "impala",
        "pyhive",
        "pymetastore",
        "pyiceberg",
    ),
    *("s3fs", "adlfs", "gcsfs", "hdfs_native", "paramiko", "smbprotocol"),
]
PROGRAM = """
import json, pathlib, sys
import torpor_hub.programs.server
from torpor_hub.services import samples
shown = samples.table(pathlib.Path(sys.argv[1]).read_bytes(), 10)
samples.as_stream(shown)
rows = samples.as_json(shown)["rows"]
loaded = [name for name in sys.argv[2:] if any(known == name or known.startswith(name + ".") for known in sys.modules)]
print(json.dumps([loaded, "fastapi" in sys.modules, rows]))
"""


def test_no_connector_is_loaded_in_the_api_even_after_it_showed_a_sample(tmp_path: Path) -> None:
    moment = dt.datetime(2013, 1, 2, 3, tzinfo=dt.UTC)
    sample = pa.table({"n": [1, None], "at": pa.array([moment, None], pa.timestamp("us", "UTC"))})
    pq.write_table(sample, tmp_path / "sample.parquet")
    command = [sys.executable, "-P", "-c", PROGRAM, str(tmp_path / "sample.parquet"), *CONNECTORS]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(ended.stdout) == [[], True, [[1, "2013-01-02T03:00:00Z"], [None, None]]]
