"""The source of the site, written from the repository's own files.

``python -m docs.generate FOLDER`` writes Markdown that Sphinx reads; nothing of it is committed. The pages of ``docs/``
are taken over as they are, with two changes: a line ``<!-- computed: NAME -->`` becomes what `computed` says, and links
to files of the repository lead to pages of the site (`links`). The others are made from

- ``pmdtheory/theorems/README.md``, the registry of claims and the docstrings: `mathematics`
- the figure modules and their tables: `gallery`, `practitioners`
- the docstrings of both packages: `api`
- every other file that a page links to: `repository`

and `site` puts them in their places.
"""
