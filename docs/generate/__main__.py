"""``python -m docs.generate FOLDER``: write the source of the site."""

import sys
from pathlib import Path

from . import site

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m docs.generate FOLDER (which is emptied first)")
    try:
        site.write(Path(sys.argv[1]))
    except ValueError as error:
        sys.exit(f"python -m docs.generate: {error}")
