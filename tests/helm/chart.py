"""The chart as it renders: objects by kind and name, and its pods."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from torpor_hub.settings import Settings

CHART = Path(__file__).resolve().parents[2] / "helm" / "torpor"
EXAMPLES = sorted(CHART.glob("ci/*-values.yaml"))
RELEASE = "torpor"
Json = dict[str, Any]

needs_helm = pytest.mark.skipif(shutil.which("helm") is None, reason="helm is not installed")


def helm(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["helm", *words], capture_output=True, text=True, check=False)


def template(*words: str, release: str = RELEASE) -> str:
    done = helm("template", release, str(CHART), "--namespace", release, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


@dataclass(frozen=True)
class Rendered:
    """What the chart makes of some values."""

    objects: tuple[Json, ...]

    def all(self, kind: str) -> list[Json]:
        return [thing for thing in self.objects if thing["kind"] == kind]

    def one(self, kind: str, name: str) -> Json:
        found = [thing for thing in self.all(kind) if thing["metadata"]["name"] == name]
        assert len(found) == 1, f"{kind} {name}: {sorted(thing['metadata']['name'] for thing in self.all(kind))}"
        return found[0]

    def names(self, kind: str) -> set[str]:
        return {thing["metadata"]["name"] for thing in self.all(kind)}

    def pods(self) -> Iterator[tuple[str, Json]]:
        """Return every pod's component and spec."""
        for thing in self.objects:
            found = thing.get("spec", {}).get("template") if isinstance(thing.get("spec"), dict) else None
            if found and "spec" in found:
                yield found["metadata"]["labels"]["app.kubernetes.io/component"], found["spec"]

    def pod(self, component: str) -> Json:
        return next(spec for name, spec in self.pods() if name == component)

    def settings_text(self) -> str:
        (found,) = [thing for thing in self.all("ConfigMap") if "torpor.yaml" in thing["data"]]
        text: str = found["data"]["torpor.yaml"]
        return text

    def settings(self) -> Settings:
        return Settings.model_validate(yaml.safe_load(self.settings_text()))


def render(*words: str, release: str = RELEASE) -> Rendered:
    return Rendered(tuple(filter(None, yaml.safe_load_all(template(*words, release=release)))))


def rendered_from(example: Path) -> Rendered:
    return render("--values", str(example))
