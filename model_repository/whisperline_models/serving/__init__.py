"""What the exporter copies into each version for Triton: `config.pbtxt`, the Python backend's `model.py`, tracing."""
