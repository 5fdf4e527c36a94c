"""Which platform, which token: every pair of sources has one answer, and it can be explained."""

import pytest

import torpor
from torpor import config

pytestmark = pytest.mark.filterwarnings("error")

FILE = """
default = "work"
[env.work]
url = "https://work.example/"
[env.lab]
url = "https://lab.example/hub/"
token_file = "lab.token"
protected = true
"""
WORK, LAB, HERE, GIVEN = (f"https://{name}.example/services/torpor/" for name in ("work", "lab", "here", "given"))
WORKSPACE = {"TORPOR_URL": HERE, "JUPYTERHUB_API_TOKEN": "hub-token", "TORPOR_WORKSPACE": "ws-1"}

MATRIX = {
    "the file's default": ({}, {}, WORK, "work-token"),
    "a variable names an environment": ({}, {"TORPOR_ENV": "lab"}, LAB, "lab-token"),
    "an address beats a named environment": ({}, {"TORPOR_ENV": "lab", **WORKSPACE}, HERE, "hub-token"),
    "in a workspace nothing is needed": ({}, WORKSPACE, HERE, "hub-token"),
    "a token variable beats the hub's": ({}, {**WORKSPACE, "TORPOR_TOKEN": "own"}, HERE, "own"),
    "a token variable beats the file": ({}, {"TORPOR_TOKEN": "own"}, WORK, "own"),
    "an environment argument beats every variable": (
        {"env": "lab"},
        {**WORKSPACE, "TORPOR_TOKEN": "own"},
        LAB,
        "lab-token",
    ),
    "an environment argument beats TORPOR_ENV": ({"env": "work"}, {"TORPOR_ENV": "lab"}, WORK, "work-token"),
    "an address argument beats an environment argument": (
        {"url": "https://given.example", "env": "lab", "token": "t"},
        {},
        GIVEN,
        "t",
    ),
    "a token argument beats everything": ({"token": "flag"}, {**WORKSPACE, "TORPOR_TOKEN": "own"}, HERE, "flag"),
    "the hub's token goes nowhere else": ({"url": "https://given.example"}, WORKSPACE, GIVEN, ""),
    "a variable's token stays with its address": (
        {"url": "https://given.example"},
        {**WORKSPACE, "TORPOR_TOKEN": "own"},
        GIVEN,
        "",
    ),
    "an address of the file finds its token": ({}, {"TORPOR_URL": "https://LAB.example"}, LAB, "lab-token"),
    "the hub's token without an address is no proof": ({}, {"JUPYTERHUB_API_TOKEN": "hub-token"}, WORK, "work-token"),
}


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home with a configuration."""
    folder = tmp_path / ".config" / "torpor"
    (folder / "tokens").mkdir(parents=True)
    (folder / "config.toml").write_text(FILE.replace("lab.token", str(folder / "lab.token")))
    (folder / "tokens" / "work").write_text("work-token\n")
    (folder / "lab.token").write_text("lab-token")
    return {"HOME": str(tmp_path)}


@pytest.mark.parametrize("case", MATRIX)
def test_the_stronger_source_wins(home, case):
    arguments, environ, url, token = MATRIX[case]
    settings = config.resolve(**arguments, environ={**home, **environ})
    assert (settings.url.value, settings.token.value) == (url, token)


def test_explain_names_what_is_used_and_what_was_passed_over(home):
    text = config.resolve(env="lab", environ={**home, **WORKSPACE}).explain()
    assert f"address: {LAB} (from argument env (lab))" in text
    assert f"TORPOR_URL: {HERE}, not used: something stronger is set" in text
    assert "JUPYTERHUB_API_TOKEN: …, not used: it belongs to the address in TORPOR_URL" in text


def test_explain_never_shows_a_token(home):
    long = "abcdefghijklmnopqrstuvwxyz"
    text = config.resolve(environ={**home, "TORPOR_TOKEN": long, **WORKSPACE}).explain()
    assert long not in text
    assert "…wxyz" in text


def test_a_protected_environment_is_known_by_its_address(home):
    settings = config.resolve(environ={**home, "TORPOR_URL": LAB})
    assert settings.environment is not None
    assert settings.environment.protected


def test_an_unknown_environment_names_those_that_there_are(home):
    with pytest.raises(torpor.ConfigurationError, match=r"no environment 'nope'.*lab, work"):
        config.resolve(env="nope", environ=home)


def test_without_anything_the_way_in_is_told(tmp_path):
    with pytest.raises(torpor.ConfigurationError, match="torpor login"):
        config.resolve(environ={"HOME": str(tmp_path)}).require()


def test_a_broken_file_is_named_with_its_line(tmp_path):
    path = tmp_path / "broken.toml"
    path.write_text("default = \n")
    with pytest.raises(torpor.ConfigurationError, match=r"broken\.toml cannot be read.*line 1"):
        config.resolve(environ={"TORPOR_CONFIG": str(path)})


ADDRESSES = {
    "https://h.example": "https://h.example/services/torpor/",
    "https://h.example/base/": "https://h.example/base/services/torpor/",
    "https://h.example/base/hub/": "https://h.example/base/services/torpor/",
    "http://127.0.0.1:8000/services/torpor": "http://127.0.0.1:8000/services/torpor/",
    "http://h/services/torpor/api/v1/": "http://h/services/torpor/",
}


@pytest.mark.parametrize(("given", "address"), ADDRESSES.items())
def test_the_platforms_address_will_do(given, address):
    assert config.normalize_url(given) == address


def test_what_is_no_address_is_refused():
    with pytest.raises(torpor.ConfigurationError, match="is not an address"):
        config.normalize_url("hub.example.org")
