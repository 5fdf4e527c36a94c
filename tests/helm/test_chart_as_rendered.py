"""The chart: what it renders without much being said, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helm import restricted
from tests.helm.chart import CHART, EXAMPLES, Rendered, helm, needs_helm, render, rendered_from
from torpor_hub.cluster.shape import shape_of
from torpor_hub.podspecs import rights
from torpor_hub.settings import Limits, ProfileSeed, TenantSeed, UserSeed

pytestmark = needs_helm
HOST = "registry.example.org:5000"
POSTGRESQL = CHART / "ci" / "postgresql-values.yaml"
EVERYTHING = CHART / "ci" / "everything-values.yaml"
NO_REGISTRY = CHART / "ci" / "no-registry-values.yaml"
BY_NAME = [pytest.param(path, id=path.stem.removesuffix("-values")) for path in EXAMPLES]
# What each program reads of the generated secrets, and its token for the api.
SECRETS = {
    "hub": {
        *("proxy-auth-token", "hub-cookie-secret", "hub-server-token-key", "hub-service-token", "hub-supervisor-token"),
        "token:hub-proof",
    },
    "proxy": {"proxy-auth-token", "hub-supervisor-token"},
    "server": {"hub-service-token", "signing-key", "fernet-key", "registry-push", "registry-pull"},
    "importer": {"token:importer-proof"},
    "demo": {"token:demo-proof"},
    "agent": {"token:agent-proof"},
}


@pytest.fixture(scope="module")
def plain() -> Rendered:
    """The chart with nothing said but where the registry is."""
    return render("--set", f"registry.host={HOST}")


@pytest.mark.parametrize("example", BY_NAME)
def test_helm_finds_nothing_amiss(example: Path) -> None:
    done = helm("lint", "--strict", str(CHART), "--values", str(example))
    assert done.returncode == 0, done.stdout


def test_the_registrys_host_is_all_that_has_to_be_said(plain: Rendered) -> None:
    images = {container["image"] for _, pod in plain.pods() for container in pod["containers"]}
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    assert images == {f"{HOST}/torpor/platform:{version}", f"{HOST}/torpor/agent:{version}"}
    assert {image for profile in plain.settings().seed.profiles for image in [profile.image]} == {
        f"{HOST}/torpor/workspace-spark:{version}"
    }
    done = helm("template", "torpor", str(CHART))
    assert done.returncode != 0
    assert "/registry/host" in done.stderr


@pytest.mark.parametrize("example", BY_NAME)
def test_the_settings_file_is_one_that_the_platform_reads(example: Path) -> None:
    found = rendered_from(example)
    settings = found.settings()
    shape = shape_of(settings)
    assert settings.mode == "kubernetes"
    accounts = {(thing["metadata"]["namespace"], thing["metadata"]["name"]) for thing in found.all("ServiceAccount")}
    assert {(shape.platform_namespace, shape.hub_account), (shape.platform_namespace, shape.server_account)} <= accounts
    for address in (settings.server, settings.hub, settings.proxy_api):
        name, namespace, _ = address.url.removeprefix("http://").split(".", 2)
        service = found.one("Service", name)
        assert service["metadata"]["namespace"] == namespace
        assert service["spec"]["ports"][0]["port"] == address.port


@pytest.mark.parametrize("example", BY_NAME)
def test_every_pod_but_the_agents_is_restricted(example: Path) -> None:
    for component, pod in rendered_from(example).pods():
        found = restricted.violations(pod)
        assert (found != []) == (component == "agent"), (component, found)


def test_the_agent_has_two_capabilities_and_its_second_container_none(plain: Rendered) -> None:
    pod = plain.pod("agent")
    held = {each["name"]: each["securityContext"]["capabilities"] for each in pod["containers"]}
    assert held == {"agent": {"drop": ["ALL"], "add": ["SYS_ADMIN", "DAC_READ_SEARCH"]}, "thaw": {"drop": ["ALL"]}}
    assert not pod.get("hostPID")
    namespaces = {thing["metadata"]["name"]: thing["metadata"]["labels"] for thing in plain.all("Namespace")}
    assert list(namespaces) == ["torpor-agent"]
    assert namespaces["torpor-agent"]["pod-security.kubernetes.io/enforce"] == "privileged"


@pytest.mark.parametrize("example", BY_NAME)
def test_the_cluster_gives_no_more_rights_than_the_table_says(example: Path) -> None:
    found = rendered_from(example)
    settings = found.settings()
    table = rights.roles(shape_of(settings))
    made = found.names("ClusterRole")
    wanted = {role.name for key, role in table.items() if key != rights.API or example == POSTGRESQL}
    assert made == wanted
    for role in table.values():
        if role.name in made:
            assert _rules(found.one("ClusterRole", role.name)["rules"]) == _rules(rights.rules(role)), role.name
    bound = {
        (thing["roleRef"]["name"], subject["name"], subject["namespace"])
        for thing in found.all("ClusterRoleBinding")
        for subject in thing["subjects"]
    }
    assert bound == {
        (role.name, role.account, settings.cluster.namespace)
        for role in table.values()
        if not role.in_tenants and role.name in made
    }
    assert found.all("Role") == found.all("RoleBinding") == []


@pytest.mark.parametrize("example", BY_NAME)
def test_only_who_asks_the_cluster_has_a_token_for_it(example: Path) -> None:
    for component, pod in rendered_from(example).pods():
        assert pod["automountServiceAccountToken"] is (component in ("hub", "server", "controller")), component
    assert all(not account["automountServiceAccountToken"] for account in rendered_from(example).all("ServiceAccount"))


def test_each_program_reads_the_secrets_that_it_needs_and_no_others(plain: Rendered) -> None:
    assert {component: _secrets(pod) for component, pod in plain.pods()} == SECRETS


def test_the_api_alone_has_no_account_of_the_registry() -> None:
    found = rendered_from(POSTGRESQL)
    assert _secrets(found.pod("server")) == {"hub-service-token", "signing-key", "fernet-key"}
    assert (
        _secrets(found.pod("controller")) - {"pull-secrets/00-registry", "pull-secrets/01-partner"} == SECRETS["server"]
    )


def test_the_controller_alone_has_the_pull_secrets_and_does_not_wait_for_them() -> None:
    found = rendered_from(POSTGRESQL)
    holders = {component: sources for component, pod in found.pods() if (sources := _pull_secrets(pod))}
    assert holders == {
        "controller": [
            {
                "name": name,
                "optional": True,
                "items": [{"key": ".dockerconfigjson", "path": f"pull-secrets/{index}-{name}"}],
            }
            for index, name in (("00", "registry"), ("01", "partner"))
        ]
    }
    whole = render("--set", f"registry.host={HOST}", "--set", "images.pullSecrets={registry}")
    assert {component for component, pod in whole.pods() if _pull_secrets(pod)} == {"server"}
    (folder,) = [
        each["mountPath"] for each in whole.pod("server")["containers"][0]["volumeMounts"] if each["name"] == "secrets"
    ]
    assert Path(folder) == whole.settings().secrets_folder
    assert not any(_pull_secrets(pod) for _, pod in rendered_from(NO_REGISTRY).pods()), "nothing is copied there"


def test_with_postgresql_api_and_controller_are_two_deployments_and_its_password_is_in_a_secret() -> None:
    found = rendered_from(POSTGRESQL)
    roles = {
        thing["metadata"]["name"]: thing["spec"]["template"]["spec"]["containers"][0]["args"][-1]
        for thing in found.all("Deployment")
    }
    assert (roles["torpor-server"], roles["torpor-controller"]) == ("api", "controller")
    assert found.one("Deployment", "torpor-server")["spec"]["replicas"] == 2
    assert found.pod("server")["serviceAccountName"] == "torpor-api"
    assert found.pod("controller")["serviceAccountName"] == "torpor-server"
    assert "torpor-server" not in found.names("PersistentVolumeClaim")
    said = json.dumps([thing for thing in found.objects if thing["kind"] != "Secret"])
    for secret in ("the-password", "the-secret-key", "write-it", "read-it"):
        assert secret not in said, secret


def test_what_has_to_outlive_an_uninstall_is_kept(plain: Rendered) -> None:
    kept = {
        (thing["kind"], thing["metadata"]["name"])
        for thing in plain.objects
        if thing["metadata"].get("annotations", {}).get("helm.sh/resource-policy") == "keep"
    }
    assert kept == {
        ("PersistentVolumeClaim", "torpor-server"),
        ("PersistentVolumeClaim", "torpor-hub"),
        ("Secret", "torpor-secrets"),
    }


def test_without_a_registry_there_are_no_agents_and_nothing_is_saved() -> None:
    found = rendered_from(NO_REGISTRY)
    assert found.all("DaemonSet") == found.all("Namespace") == []
    settings = found.settings()
    assert not settings.save_environments
    assert all(profile.image.startswith("images.example.org/torpor/") for profile in settings.seed.profiles)


def test_a_cluster_with_gpus_has_a_profile_for_them() -> None:
    profiles = {profile.name: profile for profile in rendered_from(EVERYTHING).settings().seed.profiles}
    assert profiles["gpu"].gpu_count == 1
    assert profiles["gpu"].image == f"{HOST}/team/notebooks/workspace-spark:1.2.3"


def test_a_path_in_the_address_is_where_everything_answers() -> None:
    found = rendered_from(EVERYTHING)
    (rule,) = found.one("Ingress", "notebooks")["spec"]["rules"]
    assert rule["http"]["paths"][0]["path"] == "/notebooks/"
    probes = {name: pod["containers"][0].get("readinessProbe", {}).get("httpGet", {}) for name, pod in found.pods()}
    assert probes["hub"]["path"] == "/notebooks/hub/health"
    assert probes["server"]["path"] == f"{found.settings().api_path}/health"
    (url,) = [word for word in found.pod("agent")["containers"][0]["args"] if word.startswith("--api-url=")]
    assert url == f"--api-url={found.settings().api_url}"


def test_tenants_volumes_may_lie_where_the_platforms_data_lies_and_nowhere_else(plain: Rendered) -> None:
    def rule(found: Rendered) -> str:
        policy = found.one("ValidatingAdmissionPolicy", f"{found.settings().cluster.fullname}-volumes")
        expression: str = policy["spec"]["validations"][-1]["expression"]
        return expression.removeprefix("request.operation == 'DELETE' || ")

    assert rule(plain) == "false"
    named = rule(rendered_from(EVERYTHING))
    assert 'object.spec.csi.driver == "files.example.org"' in named
    assert 'object.spec.csi.volumeHandle == "share-1"' in named


def test_the_controller_is_kept_to_what_carries_the_mark_that_it_sets(plain: Rendered) -> None:
    shape = shape_of(plain.settings())
    (mark,) = shape.instance_labels.values()
    for policy in plain.all("ValidatingAdmissionPolicy"):
        expressions = [rule["expression"] for rule in policy["spec"]["validations"]]
        demanded = f"['torpor/instance'].orValue('') == '{mark}'"
        assert any(demanded in expression for expression in expressions), policy["metadata"]["name"]


@pytest.mark.parametrize("name", sorted(yaml.safe_load((CHART / "values.yaml").read_text())))
def test_a_value_that_there_is_not_is_refused(name: str) -> None:
    values: Any = yaml.safe_load((CHART / "values.yaml").read_text())
    wrong = f"{name}.misspelled=1" if isinstance(values[name], dict) else f"{name}x=1"
    done = helm("template", "torpor", str(CHART), "--set", f"registry.host={HOST}", "--set", wrong)
    assert done.returncode != 0, name
    assert "additional properties" in done.stderr


@pytest.mark.parametrize(
    ("wrong", "about"),
    [
        ("database.url=postgresql://x", "/blobs/url"),
        ("server.replicas=2", "/database/url"),
        ("ingress.enabled=true", "/ingress/host"),
        ("limits.sleep_s=0", "/limits/sleep_s"),
        ("seed.users[0].role=admin", "/seed/users/0"),
    ],
)
def test_values_that_do_not_go_together_are_refused(wrong: str, about: str) -> None:
    done = helm("template", "torpor", str(CHART), "--set", f"registry.host={HOST}", "--set", wrong)
    assert done.returncode != 0
    assert about in done.stderr


def test_the_schema_knows_the_settings_that_go_through_it() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())["properties"]
    seeds = schema["seed"]["properties"]
    for model, found in (
        (Limits, schema["limits"]),
        (TenantSeed, seeds["tenants"]["items"]),
        (UserSeed, seeds["users"]["items"]),
        (ProfileSeed, seeds["profiles"]["items"]),
        (ProfileSeed, schema["gpu"]["properties"]["profile"]),
    ):
        assert set(found["properties"]) == set(model.model_fields), model.__name__
        assert found["additionalProperties"] is False


def _rules(rules: list[dict[str, Any]]) -> set[tuple[str, str, str, str]]:
    """Return each right by itself: group, resource, verb, name."""
    return {
        (group, resource, verb, name)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        for name in rule.get("resourceNames", [""])
    }


def _secrets(pod: dict[str, Any]) -> set[str]:
    found = set()
    for volume in pod["volumes"]:
        assert "secret" not in volume
        for source in volume.get("projected", {}).get("sources", []):
            assert volume["projected"]["defaultMode"] == 0o440
            found |= {item["path"] for item in source.get("secret", {}).get("items", [])}
            if "serviceAccountToken" in source:
                assert source["serviceAccountToken"]["audience"] == "torpor"
                found.add(f"token:{source['serviceAccountToken']['path']}")
    return found


def _pull_secrets(pod: dict[str, Any]) -> list[dict[str, Any]]:
    sources = [
        each["secret"]
        for volume in pod["volumes"]
        for each in volume.get("projected", {}).get("sources", [])
        if "secret" in each
    ]
    return [source for source in sources if source["items"][0]["key"] == ".dockerconfigjson"]


def test_every_value_is_explained_and_known_to_the_schema() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    page = (CHART.parents[1] / "docs" / "reference" / "values.md").read_text()
    schema = json.loads((CHART / "values.schema.json").read_text())
    for path in _leaves(values, schema):
        assert any(f"| `{'.'.join(path[:length])}` |" in page for length in range(1, len(path) + 1)), path


def _leaves(values: dict[str, Any], schema: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the path of each value, down to what the schema leaves open."""
    for name, value in values.items():
        assert name in schema["properties"], (*path, name)
        found = schema["properties"][name]
        if isinstance(value, dict) and found.get("properties"):
            yield from _leaves(value, found, (*path, name))
        else:
            yield (*path, name)
