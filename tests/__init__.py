"""Everything that tests the package from the tree."""

import os

# Tests count recordings: none is kept for, or taken from, another test or run. FLASHPOINT_TEST_RECORDINGS=1
# is for corpus runs of the store: the same tests twice over one FLASHPOINT_CACHE_DIR, the second run with
# what the first one wrote. Results must be the same; what a test says about counters need not hold then.
WITH_STORE = os.environ.get("FLASHPOINT_TEST_RECORDINGS") == "1"
if WITH_STORE:
    os.environ["FLASHPOINT_RECORDINGS"] = "1"
else:
    os.environ.setdefault("FLASHPOINT_RECORDINGS", "0")
