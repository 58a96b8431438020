"""The built site, if ``make docs`` left one: its pages open from disk, formulas are rendered, nothing overflows."""

import re
from pathlib import Path

import pytest

SITE = Path(__file__).parent.parent.parent / "build" / "site"
PAGES = ["index.html", "mathematics", "gallery", "explore/index.html"]

PROSE = """
const copy = document.body.cloneNode(true);
const verbatim = "code, pre, script, style, annotation, mjx-assistive-mml, .katex-mathml, template";
copy.querySelectorAll(verbatim).forEach((element) => element.remove());
return copy.textContent;
"""

RAW_FORMULA = re.compile(r"\$\$|\$[^$\n]{1,80}\$|\\(?:frac|mathbb|lambda|tau|text|left|begin)\b|\\[()\[\]]")


def found(name):
    """Path of a page of the site, whatever folder or suffix it was given."""
    options = [SITE / name, SITE / f"{name}.html", SITE / name / "index.html"]
    return next((path for path in options if path.is_file()), None)


@pytest.mark.skipif(not SITE.is_dir(), reason="there is no build/site: make docs")
@pytest.mark.parametrize("name", PAGES)
def test_a_page_of_the_site(page, name):
    path = found(name)
    assert path, f"build/site has no page {name}"
    page.wide(400, 800)
    page.open(path)
    page.run("return window.MathJax?.startup?.promise")
    overflow, errors, fetched, prose = page.overflow(), page.errors(), page.fetched(), page.run(PROSE)
    page.wide()
    assert errors == []
    assert fetched == []
    assert overflow == []
    assert RAW_FORMULA.findall(prose) == []


def test_raw_formulas_are_recognised():
    for raw in (r"the weight $\lambda$ is", r"\frac{1}{2}", r"$$x$$", r"\(x\)"):
        assert RAW_FORMULA.search(raw)
    assert not RAW_FORMULA.search("it costs $5, λ is KL(p‖q) and q = p e^s")
