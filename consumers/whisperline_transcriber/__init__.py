"""The transcriber: follows its partitions of audio, finds speech, asks Triton, publishes text."""

import os

# NumPy reads this when it is imported. Its threads would spin beside the event loop for products that are small.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
