"""JupyterLab's side of Torpor: a thin proxy to the platform, and the panel that speaks through it."""

from __future__ import annotations

from torpor_lab.app import TorporLab


def _jupyter_labextension_paths() -> list[dict[str, str]]:
    return [{"src": "labextension", "dest": "@torpor/lab"}]


def _jupyter_server_extension_points() -> list[dict[str, object]]:
    return [{"module": "torpor_lab", "app": TorporLab}]
