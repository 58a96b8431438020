"""One headless Chromium for all tests of this folder, and what they ask of a page.

``make test-browser`` runs them, and ``make test`` does not; without Chromium and its driver they are skipped.
"""

import shutil

import pytest

from tests.browser.page import Page

PACKAGES = {"chromium": "chromium", "chromedriver": "chromium-driver"}


@pytest.fixture(scope="session")
def page(tmp_path_factory):
    missing = [package for program, package in PACKAGES.items() if not shutil.which(program)]
    if missing:
        pytest.skip(f"needs Debian's {' and '.join(missing)}: make test-browser")
    with Page(tmp_path_factory.mktemp("chromium")) as page:
        yield page
