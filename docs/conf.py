"""Sphinx settings; ``make docs`` writes the pages with `docs.generate` and builds them with these."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

project = "pmdtheory"
project_copyright = "The pmdtheory authors, MIT licence"
language = "en"

extensions = [
    "docs.generate.docstrings",
    "docs.generate.mathml",
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx_design",
    "sphinxcontrib.bibtex",
]
exclude_patterns = ["extra"]
default_role = "py:obj"

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"
html_math_renderer = "mathml"
bibtex_bibfiles = [str(Path(__file__).parent / "references.bib")]

autodoc_mock_imports = ["prime_rl", "verl"]
autodoc_typehints = "none"
numpydoc_show_class_members = False

html_theme = "pydata_sphinx_theme"
html_title = "pmdtheory"
html_static_path = [str(Path(__file__).parent / "_static")]
html_css_files = ["site.css"]
html_show_sphinx = False
html_show_search_summary = False  # would fetch the pages, which a browser refuses from disk
html_copy_source = True
html_theme_options = {
    "navigation_with_keys": False,
    "header_links_before_dropdown": 8,
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
}
html_context = {"default_mode": "auto"}
html_sidebars = {"*": []}  # pages of the first level have no section to navigate


def setup(app):
    """Copy what the generator puts beside the pages: llms.txt and the explorer."""
    app.connect("config-inited", lambda app, config: setattr(config, "html_extra_path", [str(app.srcdir / "extra")]))
