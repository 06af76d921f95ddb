"""One browser for the tests of a module."""

import pytest


@pytest.fixture(scope="module")
def browser():
    from browser_kit import launched_browser

    with launched_browser() as browser:
        yield browser
