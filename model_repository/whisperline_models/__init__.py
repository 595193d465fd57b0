"""What Triton serves, and how it is made: exporter, parity check, and the engine that a version carries."""
