"""Everything that tests the package from the tree."""

import os

# Programs here count recordings: none is kept for, or taken from, another run, unless asked for.
os.environ.setdefault("FLASHPOINT_RECORDINGS", "0")
