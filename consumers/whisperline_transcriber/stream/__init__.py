"""One session from its audio to the steps that are taken for it, without I/O."""
