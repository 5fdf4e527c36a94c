"""The SDK against the real API, with a real importer: no stand-in between them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

import torpor
from tests.datasets.served_platform import Platform, importer, platform, settings_file
from tests.sources.generated_tables import frame, seeded, write_partitioned


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    file = settings_file(tmp_path_factory.mktemp("sdk") / "state", {})
    with platform(file) as running, importer(file):
        yield running


@pytest.fixture
def client(served: Platform) -> Iterator[torpor.Client]:
    with torpor.Client(served.settings.api_url, "ada", environ={"HOME": "/nowhere"}) as made:
        yield made


def test_a_dataset_goes_from_files_to_a_frame(client: torpor.Client, served: Platform) -> None:
    rng: random.Random = seeded()
    folder: Path = served.data / f"table-{rng.randrange(10**9)}"
    table = frame(rng, rng.randrange(400, 3000))
    write_partitioned(rng, table, folder)
    client.create_dataset(f"research/{folder.name}", source="files", path=folder.name)
    served.ended(client.dataset(folder.name).id)
    dataset = client.dataset(f"research/{folder.name}")
    found = f"read_parquet('{folder}/*/*.parquet', hive_partitioning = true)"
    assert dataset.rows == duckdb.sql(f"SELECT count(*) FROM {found}").fetchall()[0][0]
    assert dataset.path == str(folder)
    assert dataset.schema.partition_keys == ("month",)
    assert 0 < len(dataset.sample(5)) <= 5
    month = duckdb.sql(f"SELECT min(month) FROM {found}").fetchall()[0][0]
    rows = dataset.to_pandas(columns=["month"], filter=[["month", "==", month]])
    assert len(rows) == duckdb.sql(f"SELECT count(*) FROM {found} WHERE month = {month!r}").fetchall()[0][0]
    assert client.import_dataset(dataset.name).kind == "import"


def test_what_one_may_not_see_is_not_found(client: torpor.Client) -> None:
    with pytest.raises(torpor.NotFound, match="torpor datasets list"):
        client.dataset("research/nothing-like-this")


def test_a_job_is_submitted_found_and_cancelled(client: torpor.Client) -> None:
    job = client.submit(sorted, [3, 1, 2], name="sort", memory="128 MiB", cores=0.5)
    assert job.last_status.phase in {"SUBMITTED", "QUEUED"}
    assert job.resource.spec["amount"]["memory_bytes"] == 128 * 1024**2
    assert client.job("sort").id == job.id
    assert client.job(job.id).name == "sort"
    assert job.log() == ""
    assert job.cancel().phase == "CANCELLED"
    with pytest.raises(torpor.JobCancelled, match="cancelled"):
        job.result()


def test_a_command_is_submitted_with_what_the_platform_offers(client: torpor.Client) -> None:
    job = client.submit(["python", "-c", "print(1)"])
    assert job.resource.spec["code"]["argv"] == ["python", "-c", "print(1)"]
    assert job.resource.spec["amount"] == client.job_options()["default"]["amount"]


def test_a_refused_submit_names_the_field(client: torpor.Client) -> None:
    with pytest.raises(torpor.ApiError) as caught:
        client.submit(["true"], memory="900TiB")
    assert caught.value.pointer.startswith("/spec/amount")
    assert caught.value.next_step
    assert caught.value.request_id


def test_a_workspace_is_created_and_deleted(client: torpor.Client) -> None:
    made = client.create_workspace("from-the-sdk")
    assert client.workspace("from-the-sdk").id == made.id
    assert client.workspace(made.id).status.phase == "NEW"
    assert made.log() == ""
    assert made.checkpoints() == []
    made.delete()
    assert client.workspace(made.id).status.phase in {"NEW", "DELETING"}


def test_a_reader_is_told_that_the_token_may_only_read(served: Platform) -> None:
    with torpor.Client(served.settings.api_url, "ada-reader", environ={"HOME": "/nowhere"}) as reader:
        assert not reader.me().can_write
        with pytest.raises(torpor.Forbidden) as caught:
            reader.create_workspace("never")
    assert caught.value.next_step
