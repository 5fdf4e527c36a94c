"""Sources, datasets, their samples, and reads."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from torpor_hub.api.context import Bounds, Context, Ctx, page
from torpor_hub.api.read_streams import begun, pieces
from torpor_hub.domain.policy import Action, Object
from torpor_hub.services import datasets, imports, reads, repeats, samples, sources
from torpor_hub.services.access import check
from torpor_hub.stores.tables import Dataset, Import, Read, Source

router = APIRouter()
ARROW = "application/vnd.apache.arrow.stream"
Key = Annotated[str, Header(alias="Idempotency-Key")]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class NewSource(_Body):
    """The body of a new source."""

    name: str
    tenant: str
    kind: str = "files"
    spec: dict[str, Any]


class NewDataset(_Body):
    """The body of a new dataset; ``source`` is a name in the tenant, or an id."""

    name: str
    tenant: str
    source: str
    path: str
    format: str = "parquet"
    description: str = ""


class NewRead(_Body):
    """The body of a read; ``filter`` is a list of ``[column, operator, value]``, all of which hold."""

    columns: list[str] | None = None
    filter: list[Any] | None = None
    limit: int | None = Field(None, ge=0)


@router.get("/sources")
def list_sources(ctx: Ctx, bounds: Bounds, tenant: str | None = None) -> Response:
    """Return the sources that one may see; the policy is asked for each."""
    with ctx.read() as (tx, actor):
        limit, offset = bounds
        rows = sources.listed(tx, actor, tenant=tenant, limit=limit, offset=offset)
        return ctx.reply(page([sources.view(tx, ctx.parts.settings, actor, row) for row in rows], limit, offset))


@router.post("/sources")
def create_source(ctx: Ctx, body: NewSource, key: Key = "") -> Response:
    """Register a source; ``sources.create`` asks the policy."""
    fields = body.model_dump()
    with ctx.write() as (tx, actor):
        made = repeats.once(
            tx, actor, key, ["source", fields], lambda: sources.create(tx, ctx.parts.settings, actor, fields).id
        )
        return ctx.reply(sources.view(tx, ctx.parts.settings, actor, tx.session.get_one(Source, made)), 201)


@router.get("/datasets")
def list_datasets(
    ctx: Ctx, bounds: Bounds, tenant: str | None = None, search: str | None = None, name: str | None = None
) -> Response:
    """Return the datasets that one may see; the policy is asked for each."""
    with ctx.read() as (tx, actor):
        limit, offset = bounds
        rows = datasets.listed(tx, actor, tenant=tenant, search=search, name=name, limit=limit, offset=offset)
        items = [datasets.view(tx, ctx.parts.settings, actor, row) for row in rows]
        return ctx.reply(page(items, limit, offset))


@router.post("/datasets")
def create_dataset(ctx: Ctx, body: NewDataset, key: Key = "") -> Response:
    """Register a dataset and queue its first import; ``datasets.create`` asks the policy."""
    fields = body.model_dump()
    with ctx.write() as (tx, actor):
        made = repeats.once(tx, actor, key, ["dataset", fields], lambda: datasets.create(tx, actor, fields).id)
        return ctx.reply(datasets.view(tx, ctx.parts.settings, actor, tx.session.get_one(Dataset, made)), 201)


@router.get("/datasets/{dataset}")
def get_dataset(ctx: Ctx, dataset: str) -> Response:
    """Return a dataset."""
    with ctx.read() as (tx, actor):
        row = datasets.find(tx, actor, dataset)
        return ctx.reply(datasets.view(tx, ctx.parts.settings, actor, row))


@router.get("/datasets/{dataset}/schema")
def get_schema(ctx: Ctx, dataset: str) -> Response:
    """Return what the last good import found of the columns."""
    with ctx.read() as (tx, actor):
        return ctx.reply(datasets.schema(datasets.find(tx, actor, dataset)))


@router.get("/datasets/{dataset}/sample")
def get_sample(
    ctx: Ctx,
    dataset: str,
    limit: Annotated[int, Query(ge=0, le=10_000)] = 100,
    form: Annotated[Literal["json", "arrow"], Query(alias="format")] = "json",
) -> Response:
    """Return rows of the stored sample."""
    content, as_of = _stored_sample(ctx, dataset)
    found = samples.table(content, limit)
    if form == "arrow":
        return Response(samples.as_stream(found), media_type=ARROW)
    return ctx.reply({**samples.as_json(found), "as_of": as_of})


@router.post("/datasets/{dataset}/imports")
def import_again(ctx: Ctx, dataset: str, key: Key = "") -> Response:
    """Queue another import, or return the one that is under way."""
    with ctx.write() as (tx, actor):
        row = datasets.find(tx, actor, dataset)
        check(actor, Action.CREATE, Object("import", "", row.tenant_id))
        owner = sources.owner(tx, actor)
        made = repeats.once(tx, actor, key, ["import", row.id], lambda: imports.begin(tx, row, owner).id)
        return ctx.reply(imports.view(tx, ctx.parts.settings, tx.session.get_one(Import, made)), 201)


@router.post("/datasets/{dataset}/reads")
def create_read(ctx: Ctx, dataset: str, body: NewRead, key: Key = "") -> Response:
    """Queue a read of the dataset."""
    fields = body.model_dump()
    with ctx.write() as (tx, actor):
        row = datasets.find(tx, actor, dataset, Action.READ)
        made = repeats.once(
            tx, actor, key, ["read", row.id, fields], lambda: reads.create(tx, row, actor.user_id, fields).id
        )
        return ctx.reply(reads.view(tx, ctx.parts.settings, tx.session.get_one(Read, made)), 201)


@router.get("/reads/{read}")
def get_read(ctx: Ctx, read: str) -> Response:
    """Return how a read stands."""
    with ctx.read() as (tx, actor):
        return ctx.reply(reads.view(tx, ctx.parts.settings, reads.find(tx, actor, read, Action.SEE)))


@router.get("/reads/{read}/stream")
async def stream_read(ctx: Ctx, read: str) -> Response:
    """Return the rows as they arrive; ``read_streams.pieces`` asks the policy before the first."""
    stream = await begun(pieces(ctx, read))
    return StreamingResponse(stream, media_type=ARROW, headers={"X-Accel-Buffering": "no"})


def _stored_sample(ctx: Context, dataset: str) -> tuple[bytes, Any]:
    """Return the sample's Parquet file and its time; one that is replaced in between is looked up again."""
    for attempt in range(2):
        with ctx.read() as (tx, actor):
            row = datasets.find(tx, actor, dataset, Action.SAMPLE)
            if not row.sample_key:
                break
            key, as_of = row.sample_key, datasets.schema(row)["as_of"]
        try:
            return ctx.parts.blobs.get(key), as_of
        except FileNotFoundError:
            if attempt:
                raise
    raise datasets.not_imported(row)
