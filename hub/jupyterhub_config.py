"""JupyterHub's configuration: names our classes and reads one settings object. ``jupyterhub -f`` runs it."""

import os
from pathlib import Path

from torpor_hub.settings import load
from torpor_hub.spawning.configure import configure

configure(get_config(), load(Path(os.environ["TORPOR_SETTINGS"])))  # type: ignore[name-defined] # noqa: F821 - JupyterHub's
