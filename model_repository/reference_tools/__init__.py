"""Compare exports with the reference implementations, transformers and openai-whisper on torch.

This package is for tests, benchmarks and development. No image or wheel contains it. `python -m reference_tools --help`
shows its commands.
"""
