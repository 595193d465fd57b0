"""`python -m whisperline_models` is the command `whisperline-models`."""

from whisperline_models.cli import app

app()
