"""The Triton model `whisper_rollout`: which version serves a session."""
