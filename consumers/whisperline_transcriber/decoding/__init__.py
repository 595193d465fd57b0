"""Triton: which version of the model decodes a session, how many requests are under way, and the requests."""
