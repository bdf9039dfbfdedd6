"""Everything that tests the package from the tree."""

import os

# Programs here count recordings: none is kept for, or taken from, another run.
os.environ.setdefault("FLASHPOINT_RECORDINGS", "0")
