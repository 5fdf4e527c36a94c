"""What every part of the settings is: a closed, frozen model."""

from pydantic import BaseModel, ConfigDict

GIB = 1024**3


class Closed(BaseModel):
    """A model that knows all its fields: a misspelled setting is an error, not a default."""

    model_config = ConfigDict(extra="forbid", frozen=True)
