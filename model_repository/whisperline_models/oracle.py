"""The reference's side of the parity check: a script for an environment that has torch, run by `parity.py`.

    python oracle.py FOLDER

FOLDER holds `job.json`, `audio.npz` and a Hugging Face model; the answers are written beside them. It imports
nothing of this project, so that no mistake is shared.
"""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch  # type: ignore[import-not-found]  # in the oracle's environment only
import whisper  # type: ignore[import-not-found]
from transformers import (  # type: ignore[import-not-found]
    GenerationConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    logging,
)
from whisper.timing import find_alignment  # type: ignore[import-not-found]
from whisper.tokenizer import get_tokenizer  # type: ignore[import-not-found]

SAMPLE_RATE = 16000


def main(folder: Path) -> None:
    """Answer the job in a folder."""
    logging.set_verbosity_error()
    torch.set_num_threads(1)  # more wait for each other where the processor is shared
    torch.set_grad_enabled(False)
    job = json.loads((folder / "job.json").read_text())
    audio = np.load(folder / "audio.npz")
    transformers_model = _load_transformers(folder)
    clips = [audio[name] for name in job["clips"]]
    features = WhisperFeatureExtractor(feature_size=job["n_mels"])
    mels = [features(clip, sampling_rate=SAMPLE_RATE, return_tensors="pt").input_features for clip in clips]
    languages = job["languages"]
    answers: dict[str, Any] = {
        "tokens": [_greedy(transformers_model, *row) for row in zip(mels, languages, strict=True)]
    }
    sampled = list(zip(mels, answers["tokens"], clips, languages, strict=True))[: job["n_deep"]]
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    reference, exact = _load_openai(folder), copy.deepcopy(transformers_model).double()
    answers["timed"], answers["words"] = [], []
    for index, (mel, tokens, clip, language) in enumerate(sampled):
        arrays[f"mel_{index}"] = mel.numpy()
        arrays.update({f"{k}_{index}": v for k, v in _outputs(transformers_model, exact, mel, tokens["all"]).items()})
        answers["timed"].append(_decode_timed(reference, mel, language))
        answers["words"].append(_align(reference, mel, tokens["text"], clip, language))
    np.savez(folder / "answers.npz", **arrays)
    (folder / "answers.json").write_text(json.dumps(answers))


def _load_transformers(folder: Path) -> Any:
    model, report = WhisperForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    if any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")):
        raise SystemExit(f"the weights do not fit transformers: {report}")
    model.generation_config = GenerationConfig.from_pretrained(folder)
    return model.eval()


def _greedy(model: Any, mel: Any, language: str) -> dict[str, list[int]]:
    """Greedy tokens over 30 s without timestamps: `text` alone, and `all` with prompt."""
    settings = model.generation_config
    options = {"language": language, "task": "transcribe"} if settings.is_multilingual else {}
    out = model.generate(mel, return_timestamps=False, do_sample=False, num_beams=1, max_new_tokens=224, **options)[
        0
    ].tolist()
    prompt = [settings.decoder_start_token_id]
    if settings.is_multilingual:
        prompt += [settings.lang_to_id[f"<|{language}|>"], settings.task_to_id["transcribe"]]
    prompt.append(settings.no_timestamps_token_id)
    text = [token for token in out if token < settings.eos_token_id]
    return {"text": text, "all": prompt + text}


def _outputs(model: Any, exact: Any, mel: Any, tokens: list[int]) -> dict[str, np.ndarray[Any, Any]]:
    """Encoder state and logits computed in float64, and the encoder state as this model gives it in float32."""
    hidden = exact.model.encoder(mel.double()).last_hidden_state
    logits = exact(encoder_outputs=(hidden,), decoder_input_ids=torch.tensor([tokens])).logits
    single = model.model.encoder(mel).last_hidden_state
    return {
        "hidden": hidden.float().numpy(),
        "logits": logits.float().numpy(),
        "hidden_float32": single.numpy(),
    }


def _load_openai(folder: Path) -> Any:
    """openai-whisper over the same weights, its own names for them in `openai.npz`."""
    weights = np.load(folder / "openai.npz")
    job = json.loads((folder / "job.json").read_text())
    model = whisper.model.Whisper(whisper.model.ModelDimensions(**job["dimensions"]))
    missing = model.load_state_dict({k: torch.from_numpy(weights[k]) for k in weights}, strict=False)
    if missing.unexpected_keys or set(missing.missing_keys) - {"decoder.mask", "alignment_heads"}:
        raise SystemExit(f"the weights do not fit openai-whisper: {missing}")
    heads = torch.zeros(model.dims.n_text_layer, model.dims.n_text_head, dtype=torch.bool)
    for layer, head in job["alignment_heads"]:
        heads[layer, head] = True
    model.register_buffer("alignment_heads", heads.to_sparse(), persistent=False)
    return model.eval()


def _decode_timed(model: Any, mel: Any, language: str) -> dict[str, Any]:
    """The reference's greedy decoding with timestamps over 30 s, no fallback."""
    options = whisper.DecodingOptions(language=language, temperature=0.0, fp16=False)
    result = whisper.decode(model, mel[0], options)
    return {
        "tokens": result.tokens,
        "avg_logprob": result.avg_logprob,
        "no_speech_prob": result.no_speech_prob,
        "compression_ratio": result.compression_ratio,
    }


def _align(model: Any, mel: Any, tokens: list[int], clip: Any, language: str) -> list[dict[str, Any]]:
    """The reference's word times for these tokens, before punctuation is merged."""
    tokenizer = get_tokenizer(model.is_multilingual, language=language, task="transcribe")
    words = find_alignment(model, tokenizer, tokens, mel[0], clip.size // 160)
    return [
        {"word": w.word, "start": float(w.start), "end": float(w.end), "probability": float(w.probability)}
        for w in words
    ]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
