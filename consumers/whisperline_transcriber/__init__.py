"""The transcriber: follows its partitions of audio, finds speech, asks Triton, publishes text."""
