"""Make versions of Whisper for Triton, compare them, bring them into service, and run them.

    weights/   read a checkpoint from a package, a folder or the Hugging Face hub
    export/    write it as a version: ONNX graphs, tokenizer, code and manifest
    gate/      compare a version with the one in service on recorded speech
    rollout/   bring versions into a repository, into service and out of it
    cli/       the command `whisperline-models`
    engine/    decode with Whisper on ONNX Runtime; every version carries a copy
    serving/   Triton's Python backend around the engine; every version carries a copy
    routing/   the Triton model that returns the version for a session

Imports go from `cli` down to `weights` and `engine`, never up. This file imports nothing, because the probe runs every
few seconds and must start fast.
"""
