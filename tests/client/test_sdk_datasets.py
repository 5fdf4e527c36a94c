"""Data is whole or an error; what is stored is shown without asking the source."""

import io
import json
import pickle
import threading

import cloudpickle
import httpx
import pyarrow as pa
import pytest

import torpor
from tests.client.fake_platform import AT, TOKEN
from torpor import arrow_streams, progress

pytestmark = pytest.mark.filterwarnings("error")

TABLE = pa.table({"month": list(range(1, 1001)), "carrier": ["UA", "AA"] * 500})


def stream(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        for batch in table.to_batches(max_chunksize=100):
            writer.write_batch(batch)
    return sink.getvalue()


@pytest.fixture
def flights(platform):
    key = platform.add("dataset", "flights", rows=1000, as_of=AT, path="/data/src/flights", bytes=4096)
    platform.samples[key] = stream(TABLE)
    return platform.client().dataset("research/flights")


def test_a_dataset_says_what_is_known(flights):
    assert (flights.rows, flights.path, flights.name) == (1000, "/data/src/flights", "research/flights")
    assert flights.as_of.isoformat() == "2026-11-02T10:00:00+00:00"
    assert "1,000" in flights._repr_html_()


def test_the_schema_prints_as_a_table(flights):
    assert repr(flights.schema).splitlines() == [
        "column   type",
        "month    int64   partition key",
        "carrier  string",
        "research/flights: 2 columns, 12 partitions, as of 2026-11-02 10:00 UTC",
    ]
    assert "<td" in flights.schema._repr_html_()
    assert flights.schema.names == ["month", "carrier"]


def test_a_sample_is_a_frame_and_asks_only_for_what_is_stored(flights, platform):
    assert list(flights.sample(7).columns) == ["month", "carrier"]
    assert dict(platform.requests[-1].url.params) == {"limit": "7", "format": "arrow"}


def test_a_read_names_columns_filter_and_limit(flights, platform):
    frame = flights.to_pandas(columns=["month"], filter=[["month", ">", 3]], limit=10)
    post = next(request for request in platform.requests if request.method == "POST")
    assert json.loads(post.content) == {"columns": ["month"], "filter": [["month", ">", 3]], "limit": 10}
    assert len(frame) == 1000


def test_rows_arrive_whole(flights):
    assert flights.to_arrow().equals(TABLE)


def cut_at(platform, position):
    key = next(iter(platform.things))
    platform.samples[key] = platform.samples[key][:position]


@pytest.mark.parametrize("position", [-1, -8, -9, -600, 700, 0])
def test_a_stream_that_breaks_off_is_an_error_never_a_short_frame(flights, platform, position):
    cut_at(platform, position)
    with pytest.raises(torpor.IncompleteStream, match="broke off in the middle"):
        flights.to_pandas()


def test_a_stream_cut_between_two_batches_is_an_error(flights, platform):
    ends = len(stream(TABLE.slice(0, 500))) - 8
    with pa.ipc.open_stream(stream(TABLE)[:ends]) as reader:
        assert reader.read_all().num_rows == 500
    cut_at(platform, ends)
    with pytest.raises(torpor.IncompleteStream):
        flights.to_arrow()


def test_a_stream_cut_eight_bytes_into_a_batch_is_an_error(flights, platform):
    cut_at(platform, len(stream(TABLE.slice(0, 500))) - 8 + 8)
    with pytest.raises(torpor.IncompleteStream):
        flights.to_arrow()


def test_a_stream_cut_where_a_column_looks_like_the_end_mark_is_an_error():
    look_alike = pa.table({"n": pa.array([0x00000000FFFFFFFF] * 200, pa.uint64())})
    payload = stream(look_alike)
    assert arrow_streams.parse(payload, "all").equals(look_alike)
    first_batch = payload[: len(stream(look_alike.slice(0, 100))) - 8]
    assert first_batch.endswith(arrow_streams.END_OF_STREAM)
    with pytest.raises(torpor.IncompleteStream):
        arrow_streams.parse(first_batch, "part")


class BreaksOff(httpx.SyncByteStream):
    def __init__(self, content: bytes) -> None:
        self.content = content

    def __iter__(self):
        yield self.content
        raise httpx.RemoteProtocolError("peer closed connection without sending complete message body")


def test_a_connection_that_breaks_off_is_an_error_that_names_the_dataset(flights, platform):
    platform._get_stream = lambda _, key: httpx.Response(200, stream=BreaksOff(platform.samples[key][:400]))
    with pytest.raises(torpor.IncompleteStream, match=r"research/flights broke off after 400 B"):
        flights.to_arrow()


def test_a_refused_read_says_why(flights, platform):
    platform._get_stream = lambda _, __: httpx.Response(
        409, json={"detail": "The source does not answer.", "next_step": "Try later.", "code": "UNREACHABLE"}
    )
    with pytest.raises(torpor.Conflict, match=r"The source does not answer\. Try later\."):
        flights.to_arrow()


def test_a_path_that_one_may_not_read_is_refused_with_the_way_out(platform):
    platform.add("dataset", "secret")
    with pytest.raises(torpor.Forbidden, match=r"use \.sample\(\)"):
        _ = platform.client().dataset("research/secret").path


def test_an_unknown_dataset_says_where_to_look(platform):
    with pytest.raises(torpor.NotFound, match=r"no dataset 'research/nope'.*torpor datasets list"):
        platform.client().dataset("research/nope")


def test_a_bare_name_works_while_it_is_clear(platform):
    platform.add("dataset", "flights")
    assert platform.client().dataset("flights").name == "research/flights"
    other = platform.add("dataset", "flights")
    platform.things[other]["tenant"] = "sales"
    with pytest.raises(torpor.Conflict, match="Name one of: research/flights, sales/flights"):
        platform.client().dataset("flights")


def test_a_short_wait_is_silent_and_a_long_one_is_not():
    target = io.StringIO()
    with progress.shown(lambda: "Reading", stream=target, silent_s=30):
        assert target.getvalue() == ""
    assert target.getvalue() == ""
    said = threading.Event()

    def say():
        said.set()
        return "Reading"

    with progress.shown(say, stream=target, silent_s=0):
        assert said.wait(10)
    assert target.getvalue() == "\rReading (0 s)\n"


def test_a_function_may_take_a_dataset_along_without_its_token(flights):
    packed = cloudpickle.dumps(lambda: (flights.name, flights.path))
    assert TOKEN.encode() not in packed
    assert pickle.loads(packed)() == ("research/flights", "/data/src/flights")
