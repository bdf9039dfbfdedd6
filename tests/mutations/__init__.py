"""Changes one thing at a time in the world a compiled function reads, with eager mode as the oracle."""
