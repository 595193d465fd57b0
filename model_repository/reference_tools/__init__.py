"""Compare exports with the reference implementations, transformers and openai-whisper on torch.

For tests, benchmarks and development: no image and no wheel contains it. `python -m reference_tools --help` shows its
commands.
"""
