"""The files that an export copies into each version for Triton: `config.pbtxt`, `model.py` and `tracing.py`."""
