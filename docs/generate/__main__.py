"""``python -m docs.generate FOLDER``: write the source of the site."""

import argparse
import sys
from pathlib import Path

from . import site

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m docs.generate", description=__doc__)
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="new, empty, or of an earlier build")
    try:
        site.write(parser.parse_args().folder)
    except (ValueError, OSError) as error:
        print(f"python -m docs.generate: {error}", file=sys.stderr)
        sys.exit(2)
