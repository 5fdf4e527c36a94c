"""JupyterHub's configuration: names our classes and reads one settings object. ``jupyterhub -f`` runs it."""

import os
from pathlib import Path

from torpor_hub.settings import load
from torpor_hub.spawning.configure import configure

SPAWNERS = {
    "process": "torpor_hub.spawning.process.TorporProcessSpawner",
    "kubernetes": "torpor_hub.spawning.kube.TorporKubeSpawner",
}

settings = load(Path(os.environ["TORPOR_SETTINGS"]))
configure(get_config(), settings, SPAWNERS[settings.mode])  # type: ignore[name-defined] # noqa: F821 - JupyterHub's
