"""Whisper's decoding on ONNX Runtime, without Triton: each exported version carries a copy of this package.

The modules in the order in which a request passes through them; in brackets, the module of openai-whisper that each
follows:

    requests.py        the options of a request, and the checks on them and its audio
    worker.py          the thread that owns the engine, and the limit on queued requests
    transcription.py   Engine: one unit of work at a time, for many requests together    (transcribe.py)
    schedule.py        which unit of work is next
    stages.py          encode, decode and align: how a unit of work changes its jobs
      audio.py         audio cut into hops for the spectrogram                           (audio.py)
      encoder.py       spectrogram and encoder
      decoding.py      rows of one batch, token by token                                 (decoding.py)
      beams.py         beam search in the rows of one slot                               (decoding.py)
      prompts.py       the tokens before the first one that a row chooses                (decoding.py)
      logit_filters.py which tokens a row may choose next                                (decoding.py)
      fallback.py      which result to trust, and when to decode again                   (transcribe.py)
      aligner.py       the decoder over many tokens at once: read a prompt, align a text (timing.py)
      timing.py        word times from that cross-attention                              (timing.py)
    jobs.py            the state of one request in progress
    timeline.py        when each stage of a request ran, for tracing
    result.py          the answer to a request
    tokenizer.py       special tokens, text and words                                    (tokenizer.py)
    graphs.py          the ONNX graphs of a version, and the device that runs them
    slots.py           the decoder's buffers
    settings.py        the parameters of `config.pbtxt`
    errors.py          the errors that end a request without a result

It imports NumPy, ONNX Runtime, `tokenizers` and the standard library, and nothing else of this project.
"""
