"""Images of profiles: copied by digest, followed when they move, and told about when they cannot be had."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from tests.support import registry as registries
from tests.support.installation import seeded, settings_in
from tests.support.registry import FakeRegistry
from torpor_hub.controllers import profiles as loop
from torpor_hub.controllers.base import Leadership
from torpor_hub.controllers.profiles import ProfileController
from torpor_hub.domain.workspaces import EnvironmentChoice
from torpor_hub.errors import Conflict, ImageMissing, PlaceUnready
from torpor_hub.oci import images, references, transport
from torpor_hub.oci.references import Reference
from torpor_hub.oci.registry import Registry
from torpor_hub.oci.registry_auth import Address
from torpor_hub.programs.control_cluster import PULL_SECRETS
from torpor_hub.services import images as services_images
from torpor_hub.services import operations, people, seeding, starts, tenants, workspaces
from torpor_hub.settings import ProfileSeed, SeedSettings, Settings
from torpor_hub.stores.base import Store, take_lease
from torpor_hub.stores.tables import Change, Profile

SOURCE, COPY = "team/workspace", "torpor/profiles/small"


class World:
    """Two registries, the platform's own and another; a profile with an image; and the controller."""

    def __init__(self, folder: Path, store: Store, own: FakeRegistry, other: FakeRegistry, image: str) -> None:
        self.folder, self.store, self.own, self.other = folder, store, own, other
        self.settings = self.settings_with(image)
        seeded(store, self.settings)
        self.lead = Leadership(store, lifetime_s=600)
        self.lead.epoch = take_lease(store, "controller", self.lead.holder, 600)
        self.registry = Registry(Address(own.host, insecure=True))
        self.controller = self.new_controller()

    def new_controller(self) -> ProfileController:
        return ProfileController(self.store, self.settings, self.registry, self.lead, reach=self.reach)

    def reach(self, image: Reference) -> Registry:
        return Registry(Address(image.host, insecure=True, kept_in=PULL_SECRETS))

    def settings_with(self, image: str) -> Settings:
        seed = SeedSettings(profiles=(ProfileSeed(name="small", title="Small", image=image, default=True),))
        return settings_in(self.folder, registry={"host": self.own.host, "insecure": True}, seed=seed)

    def look(self) -> None:
        asyncio.run(self.controller.turn())

    def profile(self) -> Profile:
        with self.store.read() as tx:
            return tx.session.scalars(select(Profile)).one()

    def view(self) -> dict[str, str]:
        with self.store.read() as tx:
            return dict(tenants.profiles(tx)[0]["status"])

    def events(self) -> list[str]:
        with self.store.read() as tx:
            rows = tx.session.scalars(select(Change).where(Change.kind == "profile").order_by(Change.seq))
            return [row.event for row in rows]

    def begin(self, choice: EnvironmentChoice = EnvironmentChoice.CURRENT) -> str:
        with self.store.begin("ada") as tx:
            actor = people.person(tx, "ada", can_write=True)
            row = workspaces.create(tx, actor, name=f"w{len(self.events())}", tenant="research", profile="small")
            starts.begin(tx, self.settings, row, choice)
            return row.id


def put_image(registry: FakeRegistry, tag: str = "1", *, content: str = "one", kinds: str | None = "command") -> str:
    """Put an image of one layer into a registry and return its digest."""
    client = Registry(Address(registry.host, insecure=True))
    digest = put_image_by(client, tag, content=content, kinds=kinds)
    client.close()
    return digest


def put_image_by(client: Registry, tag: str = "1", *, content: str = "one", kinds: str | None = "command") -> str:
    """Do the same with a client that has what the registry asks for."""
    layer = content.encode()
    record = images.LayerRecord(client.put_blob(SOURCE, layer), images.digest_of(layer), len(layer), 1)
    config = json.loads(images.image_config([record], created="2026-01-01T00:00:00Z", architecture="amd64"))
    config["config"]["Labels"] = {"org.torpor.kinds": kinds} if kinds is not None else {}
    client.put_blob(SOURCE, images.canonical(config))
    return client.put_manifest(SOURCE, tag, images.image_manifest(images.canonical(config), [record], {}))


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRegistry]:
    monkeypatch.setattr(transport, "PAUSES_S", (0.0,))
    monkeypatch.setattr(loop, "LOOK_EVERY_S", 0.0)
    monkeypatch.setattr(loop, "TRY_AGAIN_S", 0.0)
    with registries.fake() as registry:
        yield registry


@pytest.fixture
def other() -> Iterator[FakeRegistry]:
    with registries.fake() as registry:
        yield registry


@pytest.fixture
def world(tmp_path: Path, store: Store, own: FakeRegistry, other: FakeRegistry) -> Iterator[World]:
    made = World(tmp_path, store, own, other, f"{other.host}/{SOURCE}:1")
    yield made
    made.registry.close()


def test_an_image_is_copied_by_digest_and_its_label_says_what_it_can_run(world: World) -> None:
    digest = put_image(world.other, kinds="command,spark")
    world.look()
    assert (world.profile().digest, world.profile().kinds) == (digest, ["command", "spark"])
    assert world.own.manifests[COPY, digest] == world.other.manifests[SOURCE, digest]
    assert {digest for repository, digest in world.own.blobs if repository == COPY} == set(
        world.own.named_blobs(world.own.manifests[COPY, digest])
    )
    assert world.view()["phase"] == "READY"
    with world.store.begin("ada") as tx:
        row = tx.session.scalars(select(Profile)).one()
        assert services_images.of_profile(world.settings, row) == f"{world.own.host}/{COPY}@{digest}"
    assert world.events() == ["created", "image"]


def test_another_look_writes_nothing_and_a_lost_copy_is_made_again(world: World) -> None:
    digest = put_image(world.other)
    world.look()
    world.own.asked.clear()
    world.look()
    assert [asked for asked in world.own.asked if not asked.startswith("GET")] == []
    assert world.events() == ["created", "image"]
    world.own.manifests.clear()
    world.own.blobs.clear()
    world.look()
    assert (COPY, digest) in world.own.manifests


def test_a_tag_that_moves_is_followed_and_the_earlier_image_stays(world: World) -> None:
    first = put_image(world.other)
    world.look()
    second = put_image(world.other, content="two")
    world.look()
    assert world.profile().digest == second != first
    assert {(COPY, first), (COPY, second)} <= world.own.manifests.keys()
    assert {first, second} <= set(world.own.tags.values()), "an image without a tag may be collected"


def test_within_the_platforms_own_registry_nothing_is_sent_again(
    tmp_path: Path, store: Store, own: FakeRegistry
) -> None:
    digest = put_image(own)
    world = World(tmp_path, store, own, own, f"{own.host}/{SOURCE}:1")
    own.asked.clear()
    world.look()
    assert (COPY, digest) in own.manifests
    assert not [asked for asked in own.asked if asked.startswith("PATCH")]
    world.registry.close()


def test_an_image_that_is_not_there_is_told_and_its_start_refused_until_it_is(world: World) -> None:
    world.look()
    problem = world.profile().problem
    assert problem.startswith("The image of the profile 'small' cannot be had:")
    assert "There is no image 1" in problem
    assert f"have the pull secrets that `images.pullSecrets` names hold an account for {world.other.host}." in problem
    assert (world.view()["phase"], world.view()["message"]) == ("FAILED", problem)
    world.look()
    assert world.events() == ["created", "image-problem"], "the same problem was recorded twice"
    with pytest.raises(Conflict, match="There is no image 1"):
        world.begin()
    put_image(world.other)
    world.look()
    assert world.profile().problem == ""
    world.begin()


def test_a_registry_that_is_away_leaves_a_profile_that_was_taken_over_as_it_was(world: World) -> None:
    digest = put_image(world.other)
    world.look()
    world.other.faults.busy = 10**6
    world.look()
    assert world.profile().digest == digest
    assert "answered 503" in world.profile().problem
    world.begin()
    world.other.faults.busy = 0
    world.look()
    assert world.profile().problem == ""


def test_a_registry_that_refuses_is_not_asked_every_few_seconds(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "LOOK_EVERY_S", 600.0)
    world.other.faults.token, world.other.faults.issued = "one", "another"
    world.look()
    assert "refuses" in world.profile().problem
    asked = len(world.other.asked)
    world.look()
    assert len(world.other.asked) == asked


def test_a_start_waits_for_an_image_that_is_still_being_copied(world: World) -> None:
    put_image(world.other)
    key = world.begin()
    with world.store.begin("controller") as tx, pytest.raises(PlaceUnready, match="still being copied"):
        services_images.require(tx, world.settings, operations.workspace_of(tx, key))
    world.look()
    with world.store.begin("controller") as tx:
        services_images.require(tx, world.settings, operations.workspace_of(tx, key))


def test_an_upgrade_that_names_another_image_changes_the_profiles(world: World) -> None:
    put_image(world.other)
    second = put_image(world.other, "2", content="two", kinds=None)
    world.look()
    world.settings = world.settings_with(f"{world.other.host}/{SOURCE}:2")
    with world.store.begin("test") as tx:
        seeding.seed(tx, world.settings)
    world.controller = world.new_controller()
    world.look()
    assert world.profile().digest == second
    assert world.profile().kinds == ["command"], "an image without the label changes no kinds"


def test_without_a_registry_the_image_is_run_as_it_was_written(tmp_path: Path, store: Store, own: FakeRegistry) -> None:
    world = World(tmp_path, store, own, own, f"{own.host}/{SOURCE}:1")
    bare = settings_in(tmp_path, seed=world.settings.seed)
    controller = ProfileController(store, bare, None, world.lead, reach=world.reach)
    asyncio.run(controller.turn())
    assert services_images.of_profile(bare, world.profile()) == f"{own.host}/{SOURCE}:1"
    assert world.profile().problem == ""
    world.registry.close()


@pytest.mark.parametrize(
    ("text", "host", "repository", "reference"),
    [
        ("registry.example:5000/team/image:1.0", "registry.example:5000", "team/image", "1.0"),
        ("localhost/image", "localhost", "image", "latest"),
        ("jupyter/base-notebook", "registry-1.docker.io", "jupyter/base-notebook", "latest"),
        ("debian:13", "registry-1.docker.io", "library/debian", "13"),
        (f"h.example/a@sha256:{'0' * 64}", "h.example", "a", f"sha256:{'0' * 64}"),
        (f"h.example/a:1@sha256:{'0' * 64}", "h.example", "a", f"sha256:{'0' * 64}"),
    ],
)
def test_an_images_name_is_read_as_a_node_reads_it(text: str, host: str, repository: str, reference: str) -> None:
    assert references.parse(text) == references.Reference(host, repository, reference)


@pytest.mark.parametrize("text", ["", "Team/Image", "h.example/a:b:c", "h.example/a@sha256:1", "h.example/../a", "a b"])
def test_what_is_no_images_name_is_said_to_be_none(text: str) -> None:
    with pytest.raises(ImageMissing, match="not the name of an image"):
        references.parse(text)
