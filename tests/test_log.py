"""The diary: dated headings, newest first, entries of a few lines, and links that lead somewhere."""

import datetime
import re
from pathlib import Path

LOG = Path(__file__).parent.parent / "docs" / "log.md"


def test_the_log_is_dated_and_brief():
    dates = re.findall(r"^## (.*)$", LOG.read_text(), re.M)
    heads = [datetime.datetime.strptime(date, "%d %B %Y") for date in dates]
    assert heads == sorted(heads, reverse=True)
    entries = [block.splitlines() for block in LOG.read_text().split("\n\n") if block.startswith("**")]
    assert len(entries) >= 25 and all(2 <= len(lines) <= 4 for lines in entries)
    assert len({lines[0].split("**")[1] for lines in entries}) == len(entries)


def test_links_of_the_log():
    links = re.findall(r"\]\(([^)#]+)\)", LOG.read_text())
    assert links and all((LOG.parent / link).exists() for link in links)
