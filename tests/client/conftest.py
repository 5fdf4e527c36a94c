"""What the tests of the SDK share."""

import pytest
from tests.sdk.fake_platform import FakePlatform


@pytest.fixture
def platform() -> FakePlatform:
    """A platform in memory."""
    return FakePlatform()
