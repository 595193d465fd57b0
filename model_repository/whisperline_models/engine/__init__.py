"""Whisper's decoding on ONNX Runtime, without Triton: each exported version carries a copy of this package.

A request's way through it, with the module of openai-whisper that each one follows:

    requests.py        check options and audio; what a request may ask for
    worker.py          the thread that owns the engine, and the bound on requests
    transcription.py   Engine: one unit of work at a time, for many requests together    (transcribe.py)
    schedule.py        which unit of work is next
    stages.py          encode, decode and align: what a unit does to its jobs
      audio.py         audio cut into hops for the spectrogram                           (audio.py)
      encoder.py       spectrogram and encoder
      decoding.py      rows of one batch, token by token                                 (decoding.py)
      prompts.py       what a row is fed before it may choose                            (decoding.py)
      logit_filters.py which tokens it may choose                                        (decoding.py)
      fallback.py      which result to trust, and when to decode again                   (transcribe.py)
      timing.py        word times from cross-attention                                   (timing.py)
    jobs.py            the state of one request under way
    timeline.py        when each stage of a request was worked on, for tracing
    result.py          the answer
    tokenizer.py       special tokens, text and words                                    (tokenizer.py)
    graphs.py          the ONNX graphs of a version, and the device that runs them
    slots.py           the decoder's buffers
    settings.py        the parameters of `config.pbtxt`
    errors.py          what ends a request without a result

It imports NumPy, ONNX Runtime, `tokenizers` and the standard library, and nothing else of this project.
"""
