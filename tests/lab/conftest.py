from __future__ import annotations

from collections.abc import Iterator

import pytest
from platform_stand_in import Platform


@pytest.fixture
def platform() -> Iterator[Platform]:
    served = Platform()
    yield served
    served.close()
