"""The platform's settings, from one TOML or YAML file."""

from __future__ import annotations

import tomllib
from pathlib import Path

import yaml
from pydantic import ValidationError

from torpor_hub.errors import StartupError
from torpor_hub.settings.cluster import ClusterSettings, PathSettings, RegistrySettings
from torpor_hub.settings.limits import Limits, PoolSettings
from torpor_hub.settings.model import Address, Settings
from torpor_hub.settings.seeds import ProfileSeed, SeedSettings, TenantSeed, UserSeed

__all__ = [
    "Address",
    "ClusterSettings",
    "Limits",
    "PathSettings",
    "PoolSettings",
    "ProfileSeed",
    "RegistrySettings",
    "SeedSettings",
    "Settings",
    "TenantSeed",
    "UserSeed",
    "load",
]


def load(file: Path) -> Settings:
    """Return the settings in ``file`` (TOML, or YAML by its ending).

    Raises:
        StartupError: when the file cannot be read or holds something that is not a setting.
    """
    try:
        text = file.read_text()
        content = yaml.safe_load(text) if file.suffix in (".yaml", ".yml") else tomllib.loads(text)
        return Settings.model_validate(content)
    except OSError as error:
        raise StartupError(f"The settings file {file} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, yaml.YAMLError) as error:
        raise StartupError(f"The settings file {file} is not well formed: {error}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise StartupError(f"The settings file {file}: '{place}': {first['msg']}.") from error
