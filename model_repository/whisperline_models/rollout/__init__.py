"""Brings versions into service and out of it."""
