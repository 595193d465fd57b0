"""Compares exports with the reference implementations; for tests and development, in no image and no wheel."""
