"""Compares a version with the one in service on real speech."""
