"""Sets up everything that the demo and the tests need: `python3 ci/setup.py` (or `make setup`).

Safe to run as often as you like: it does only what is missing and carries on after an interruption.
"""

import sys

SUPPORTED = ((3, 10), (3, 13))

# Before the other modules are imported: an old Python could not even parse them.
if not SUPPORTED[0] <= sys.version_info[:2] <= SUPPORTED[1]:
    sys.exit(
        "set-up: hvd_compress needs Python 3.10 to 3.13 and this is Python %d.%d: install one of those "
        "(3.11 is what is tested) and name it, as in `make PYTHON=python3.11 test`." % sys.version_info[:2]
    )

from everything import set_up
from problem import report

with report():
    set_up()
