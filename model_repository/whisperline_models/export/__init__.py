"""Writes a checkpoint as a version that Triton can serve."""
