"""The connectors by kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torpor_hub.domain.datasets import FailureCode
from torpor_hub.errors import SourceFailed
from torpor_hub.sources.base import Connector, Request


def _files(request: Request) -> Connector:
    from torpor_hub.sources.files import Files

    return Files(request)


# Each imports its libraries when it is called, so that a child loads only what its task needs.
CONNECTORS: Mapping[str, Callable[[Request], Connector]] = {"files": _files}


def connector(kind: str, request: Request) -> Connector:
    """Return the connector of this kind for a request.

    Raises:
        SourceFailed: UNSUPPORTED, when this importer has no such connector or the request does not suit it.
    """
    make = CONNECTORS.get(kind)
    if make is None:
        known = ", ".join(CONNECTORS)
        raise SourceFailed(
            FailureCode.UNSUPPORTED, f"This importer has no connector '{kind}'.", f"Connectors that it has: {known}."
        )
    return make(request)
