"""What the tests of the SDK share."""

import pytest

from tests.client.fake_platform import FakePlatform


@pytest.fixture
def platform() -> FakePlatform:
    """A platform in memory."""
    return FakePlatform()
