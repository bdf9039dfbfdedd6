"""Tests of the store: behaviour, damage, many processes."""
