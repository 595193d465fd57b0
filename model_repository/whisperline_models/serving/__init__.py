"""What the exporter copies for Triton: the configuration and the Python backend's `model.py`."""
