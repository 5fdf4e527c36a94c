"""Names that people give, and what may be one."""

from __future__ import annotations

import re

NAME = re.compile(r"[a-z](?:[a-z0-9]|-(?=[a-z0-9])){0,29}")
RULE = "1 to 30 characters: lower-case letters, digits and single hyphens; a letter first, no hyphen last"


def is_name(text: str) -> bool:
    """Return whether ``text`` may name a workspace, tenant, source or profile.

    The rule is JupyterHub 6's for named servers, because a workspace's name is its server's.
    """
    return NAME.fullmatch(text) is not None


DATASET = re.compile(r"[a-z0-9](?:[a-z0-9_]|[-.](?=[a-z0-9_])){0,62}")
DATASET_RULE = "1 to 63 characters: lower-case letters, digits, underscores, and single hyphens or dots inside"


def is_dataset_name(text: str) -> bool:
    """Return whether ``text`` may name a dataset."""
    return DATASET.fullmatch(text) is not None
