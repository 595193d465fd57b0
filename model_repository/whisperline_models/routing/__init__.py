"""The Triton model `whisper_rollout`, which returns the version that serves a session."""
