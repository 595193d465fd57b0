"""`python -m whisperline_local` is `whisperline-local`."""

from whisperline_local.cli import app

app()
