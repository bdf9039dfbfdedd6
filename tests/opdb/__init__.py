"""torch's own operator database, run through `flashpoint.compile`: see check.py."""
