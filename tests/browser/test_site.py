"""The built site, if ``make docs`` left one: its pages open from disk, formulas are rendered, nothing overflows."""

import re
from pathlib import Path

import pytest

SITE = Path(__file__).parent.parent.parent / "build" / "site"
NEEDED = ["index", "mathematics", "gallery", "explore"]

PROSE = """
const copy = document.body.cloneNode(true);
const verbatim = "code, pre, script, style, annotation, mjx-assistive-mml, .katex-mathml, template";
copy.querySelectorAll(verbatim).forEach((element) => element.remove());
return copy.textContent;
"""

RAW_FORMULA = re.compile(r"\$\$|\$[^$\n]{1,80}\$|\\(?:frac|mathbb|lambda|tau|text|left|begin)\b|\\[()\[\]]")


def pages(name):
    """Pages of the site with a name: the page itself, or all pages of a folder."""
    return [path for path in (SITE / f"{name}.html",) if path.is_file()] + sorted((SITE / name).glob("*.html"))


def faults(page, path):
    """What is wrong with a page at 400 pixels."""
    page.open(path)
    page.run("return window.MathJax?.startup?.promise")
    raw = RAW_FORMULA.findall(page.run(PROSE))
    found = {"console": page.errors(), "network": page.fetched(), "too wide": page.overflow(), "raw formulas": raw}
    return [f"{path.relative_to(SITE)}, {what}: {list(value)[:3]}" for what, value in found.items() if value]


@pytest.mark.skipif(not SITE.is_dir(), reason="there is no build/site: make docs")
@pytest.mark.parametrize("name", NEEDED)
def test_pages_of_the_site(page, name):
    paths = pages(name)
    assert paths, f"build/site has no page {name}"
    page.wide(400, 800)
    found = [fault for path in paths for fault in faults(page, path)]
    page.wide()
    assert found == [], "\n".join(found)


def test_raw_formulas_are_recognised():
    for raw in (r"the weight $\lambda$ is", r"\frac{1}{2}", r"$$x$$", r"\(x\)"):
        assert RAW_FORMULA.search(raw)
    assert not RAW_FORMULA.search("it costs $5, λ is KL(p‖q) and q = p e^s")
