"""Reads weights of Whisper from wherever they are."""
