"""A person at a running platform: their workspaces, jobs and kernels, through the api alone."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.support.kernels import Kernel
from tests.support.platform import Platform, until

STARTS_WITHIN_S = 180
AT_REST = ("ASLEEP", "STOPPED", "FAILED", "NEW")
ENDED = ("SUCCEEDED", "FAILED", "CANCELLED")


class Person:
    """A user with a token of their own."""

    def __init__(self, site: Platform, name: str) -> None:
        self.site, self.name = site, name
        self.token = site.token(name)
        self.client = httpx.Client(base_url=site.api, headers={"Authorization": f"Bearer {self.token}"}, timeout=60)

    def get(self, path: str) -> dict[str, Any]:
        """Return what the api answers."""
        answer = self.client.get(path)
        assert answer.status_code == 200, f"{path}: {answer.status_code} {answer.text}"
        return dict(answer.json())

    def page(self, path: str) -> str:
        """Return a page of the platform, as the person's browser gets it."""
        with self.site.signed_in(self.name) as browser:
            answer = browser.get(f"services/torpor/{path}")
            assert answer.status_code == 200, f"{path}: {answer.status_code}"
            return answer.text

    # Workspaces

    def create(self, name: str, tenant: str, profile: str = "small") -> str:
        """Return the id of a new workspace, which is starting."""
        body = {"name": name, "tenant": tenant, "profile": profile, "desired": "running"}
        answer = self.client.post("/workspaces", json=body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def wish(self, workspace: str, **spec: Any) -> httpx.Response:
        """Return the answer to a wish."""
        return self.client.patch(f"/workspaces/{workspace}", json={"spec": spec})

    def wished(self, workspace: str, **spec: Any) -> None:
        """Wish something that has to be accepted."""
        answer = self.wish(workspace, **spec)
        assert answer.status_code == 200, answer.text

    def status(self, workspace: str) -> dict[str, Any]:
        """Return the workspace's status."""
        return dict(self.get(f"/workspaces/{workspace}")["status"])

    def reaches(self, workspace: str, phase: str, within_s: float = STARTS_WITHIN_S) -> dict[str, Any]:
        """Return the status once the workspace is in ``phase``; fail at once where it comes to rest elsewhere."""
        last: dict[str, Any] = {}

        def look() -> bool:
            last.update(self.status(workspace))
            wrong = last["phase"] == "FAILED" and phase != "FAILED"
            assert not wrong, f"{workspace} failed instead of {phase}: {last} {self._log(workspace)}"
            return bool(last["phase"] == phase)

        until(look, within_s, f"{workspace} {phase}; it is {last}")
        return last

    def kernel(self, workspace: str, kernel_id: str = "") -> Kernel:
        """Return a kernel of the running workspace."""
        return Kernel(self.server_url(workspace), self.token, kernel_id)

    def server_url(self, workspace: str) -> str:
        """Return the address of the workspace's server through the proxy; ends in a slash."""
        name = self.get(f"/workspaces/{workspace}")["name"]
        parts = urlsplit(self.site.url)
        return f"{parts.scheme}://{parts.netloc}{parts.path}user/{self.name}/{name}/"

    def _log(self, workspace: str) -> str:
        return str(self.get(f"/workspaces/{workspace}/log?lines=30")["text"])

    # Jobs

    def submit(self, workspace: str | None, argv: list[str], **spec: Any) -> str:
        """Return the id of a new job that runs a command."""
        asked = {
            "name": "job",
            "kind": "command",
            "workspace": workspace,
            "environment": "workspace" if workspace else "profile",
            "amount": {"cpu_milli": 250, "memory_bytes": 256 * 1024**2, "gpu_count": 0},
            "code": {"type": "command", "argv": argv},
            "retries": 3,
            **spec,
        }
        answer = self.client.post("/jobs", files={"spec": (None, json.dumps(asked), "application/json")})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def job(self, job: str) -> dict[str, Any]:
        """Return the job's status."""
        return dict(self.get(f"/jobs/{job}")["status"])

    def ended(self, job: str, within_s: float = STARTS_WITHIN_S) -> dict[str, Any]:
        """Return the job's status once it has ended."""
        until(lambda: self.job(job)["phase"] in ENDED, within_s, f"the end of {job}")
        return self.job(job)

    def job_log(self, job: str) -> str:
        """Return the output of the job's newest attempt."""
        return self.client.get(f"/jobs/{job}/log").text
