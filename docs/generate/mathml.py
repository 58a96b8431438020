"""A Sphinx extension: formulas as MathML, written when the site is built.

Browsers draw MathML themselves, so pages need no script and no network, and open from disk. The brackets that stretch
come from the font in ``docs/_static/fonts``.
"""

import html
import re

from docutils import nodes
from math_core import LatexError, LatexToMathML
from sphinx.util import logging

_CONVERT = LatexToMathML(fancy_error=False)
_BY_NAME = str.maketrans({"⊤": r"\top ", "≪": r"\ll ", "≫": r"\gg "})
_LOGGER = logging.getLogger(__name__)


def convert(latex, display):
    """Return MathML; ``LatexError`` says what is not understood."""
    latex = latex.translate(_BY_NAME).strip()
    if display and re.search(r"\\\\|(?<!\\)&", latex) and r"\begin" not in latex:
        latex = rf"\begin{{aligned}}{latex}\end{{aligned}}"  # as reStructuredText's math directive allows
    return _CONVERT.convert_with_local_state(latex, displaystyle=display)


def _write(display):
    def visit(self, node):
        try:
            formula = convert(node.astext(), display)
        except LatexError as error:
            _LOGGER.warning("formula not understood: %s: %s", node.astext(), error, location=node)
            formula = f"<code>{html.escape(node.astext())}</code>"
        self.body.append(f'<div class="formula">{formula}</div>\n' if display else formula)
        raise nodes.SkipNode

    return visit


def setup(app):
    """Register the renderer, ``html_math_renderer = "mathml"``."""
    app.add_html_math_renderer("mathml", (_write(False), None), (_write(True), None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
