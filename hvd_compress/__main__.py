"""`python -m hvd_compress`: see `hvd_compress.cli`."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
