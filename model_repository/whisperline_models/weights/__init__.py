"""Read Whisper's weights from a package, a folder or the Hugging Face hub into one common form."""

from whisperline_models.weights.checkpoint import Checkpoint, Dimensions, Source
from whisperline_models.weights.sources import load_checkpoint

__all__ = ["Checkpoint", "Dimensions", "Source", "load_checkpoint"]
