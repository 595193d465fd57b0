"""Whisper's decoding on ONNX Runtime, without Triton: each exported version carries a copy of this package.

It imports NumPy, ONNX Runtime, `tokenizers` and the standard library, and nothing else of this project.
"""
