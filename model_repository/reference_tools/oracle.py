"""Answer questions with the reference implementations. `ask.py` runs this script in an environment that has torch.

    python oracle.py FOLDER

FOLDER holds `job.json` and, for questions about audio, `audio.npz` and a Hugging Face model. The script writes the
answers beside them. It imports nothing from this project, so that the two sides cannot share a mistake.
"""

from __future__ import annotations

import copy
import json
import sys
from contextlib import suppress
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
    torch.set_num_threads(1)  # on a shared machine, more threads would wait for each other
    torch.set_grad_enabled(False)
    job = json.loads((folder / "job.json").read_text())
    if "texts" in job:
        answers: Any = answer_texts(job["texts"])
    else:
        oracle = Oracle(folder, job)
        with np.load(folder / "audio.npz") as audio:
            questions = enumerate(job["questions"])
            answers = [oracle.answer(index, question, audio[str(index)]) for index, question in questions]
        np.savez(folder / "answers.npz", **oracle.arrays)
    (folder / "answers.json").write_text(json.dumps(answers))


def answer_texts(texts: list[str]) -> dict[str, Any]:
    """Return openai-whisper's tokens for each kind of vocabulary, and these texts encoded as prompts."""
    names = ("sot", "eot", "no_speech", "no_timestamps", "timestamp_begin", "translate", "transcribe", "sot_prev")
    never = ("transcribe", "translate", "sot", "sot_prev", "sot_lm", "no_speech")
    answers = {}
    for kind, multilingual, n_languages in (
        ("english", False, 99),
        ("multilingual", True, 99),
        ("cantonese", True, 100),
    ):
        tokenizer = get_tokenizer(multilingual, num_languages=n_languages)
        languages = zip(tokenizer.all_language_codes, tokenizer.all_language_tokens, strict=True)
        answers[kind] = {
            **{name: getattr(tokenizer, name) for name in names},
            "languages": dict(sorted(languages)),
            "suppressed": sorted({*tokenizer.non_speech_tokens, *(getattr(tokenizer, name) for name in never)}),
            "blank": [*tokenizer.encode(" "), tokenizer.eot],
            "texts": [[text, tokenizer.encode(f" {text.strip()}")] for text in texts],
        }
    return answers


class Oracle:
    """Both reference implementations with the same weights. `arrays` holds the parts of answers that are arrays."""

    def __init__(self, folder: Path, job: dict[str, Any]) -> None:
        self.transformers = load_transformers(folder)
        self.exact = copy.deepcopy(self.transformers).double()
        self.openai = load_openai(folder, job)
        self.features = WhisperFeatureExtractor(feature_size=job["dimensions"]["n_mels"])
        self.arrays: dict[str, np.ndarray[Any, Any]] = {}

    def answer(self, index: int, question: dict[str, Any], audio: np.ndarray[Any, Any]) -> dict[str, Any]:
        """Answer one question: return the parts that its `wants` names."""
        wants = question["wants"]
        answer: dict[str, Any] = {}
        mel = self.features(audio, sampling_rate=SAMPLE_RATE, return_tensors="pt").input_features
        language = question["language"] or "en"
        if {"greedy", "outputs", "words"} & set(wants):
            answer["greedy"] = _greedy(self.transformers, mel, language, question["sample_length"])
        if "outputs" in wants:
            found = _outputs(self.transformers, self.exact, mel, answer["greedy"]["all"])
            self.arrays |= {f"{name}_{index}": value for name, value in {"mel": mel.numpy(), **found}.items()}
        if "decode" in wants:
            answer["decode"] = _decode(self.openai, mel, question)
        if "words" in wants:
            answer["words"] = _align(self.openai, mel, answer["greedy"]["text"], audio, language)
        if "fallback" in wants:
            answer["fallback"] = _fallback(self.openai, audio, language)
        return answer


def load_transformers(folder: Path) -> Any:
    """Load the model in a Hugging Face folder, and exit if weights are missing or left over."""
    model, report = WhisperForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    if any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")):
        raise SystemExit(f"the weights do not fit transformers: {report}")
    model.generation_config = GenerationConfig.from_pretrained(folder)
    return model.eval()


def _greedy(model: Any, mel: Any, language: str, sample_length: int) -> dict[str, list[int]]:
    """Decode 30 s greedily without timestamps. Return the tokens of the `text`, and `all` tokens with the prompt."""
    settings = model.generation_config
    options = {"language": language, "task": "transcribe"} if settings.is_multilingual else {}
    greedy = {"return_timestamps": False, "do_sample": False, "num_beams": 1, "max_new_tokens": sample_length}
    out = model.generate(mel, **greedy, **options)[0].tolist()
    prompt = [settings.decoder_start_token_id]
    if settings.is_multilingual:
        prompt += [settings.lang_to_id[f"<|{language}|>"], settings.task_to_id["transcribe"]]
    prompt.append(settings.no_timestamps_token_id)
    chosen = out[len(prompt) :] if out[: len(prompt)] == prompt else out
    chosen = [token for token in chosen if token != settings.eos_token_id]
    return {"text": [token for token in chosen if token < settings.eos_token_id], "all": prompt + chosen}


def _outputs(model: Any, exact: Any, mel: Any, tokens: list[int]) -> dict[str, np.ndarray[Any, Any]]:
    """Return the encoder state and the logits computed in float64, and the encoder state computed in float32."""
    hidden = exact.model.encoder(mel.double()).last_hidden_state
    logits = exact(encoder_outputs=(hidden,), decoder_input_ids=torch.tensor([tokens])).logits
    single = model.model.encoder(mel).last_hidden_state
    return {
        "hidden": hidden.float().numpy(),
        "logits": logits.float().numpy(),
        "hidden_float32": single.numpy(),
    }


def load_openai(folder: Path, job: dict[str, Any]) -> Any:
    """Load openai-whisper with the same weights, stored under its own names in `openai.npz`."""
    weights = np.load(folder / "openai.npz")
    model = whisper.model.Whisper(whisper.model.ModelDimensions(**job["dimensions"]))
    missing = model.load_state_dict({k: torch.from_numpy(weights[k]) for k in weights}, strict=False)
    if missing.unexpected_keys or set(missing.missing_keys) - {"decoder.mask", "alignment_heads"}:
        raise SystemExit(f"the weights do not fit openai-whisper: {missing}")
    heads = torch.zeros(model.dims.n_text_layer, model.dims.n_text_head, dtype=torch.bool)
    for layer, head in job["alignment_heads"]:
        heads[layer, head] = True
    model.register_buffer("alignment_heads", heads.to_sparse(), persistent=False)
    return model.eval()


def _decode(model: Any, mel: Any, question: dict[str, Any]) -> dict[str, Any]:
    """Decode 30 s, greedily or by beam search, with the question's options, without temperature fallback."""
    options = whisper.DecodingOptions(
        language=question["language"],
        task=question["task"],
        prompt=question["prompt"] or None,
        without_timestamps=not question["timestamps"],
        sample_len=question["sample_length"],
        temperature=0.0,
        beam_size=question["beam_size"],
        patience=question["patience"] if question["beam_size"] else None,
        length_penalty=question["length_penalty"],
        fp16=False,
    )
    result = whisper.decode(model, mel[0], options)
    heard = model.detect_language(mel[0])[1] if model.is_multilingual else {"en": 1.0}
    return {
        "language": result.language,
        "language_probability": heard[result.language],
        "tokens": result.tokens,
        "text": result.text,
        "avg_logprob": result.avg_logprob,
        "no_speech_prob": result.no_speech_prob,
        "compression_ratio": result.compression_ratio,
    }


class _DecidedError(Exception):
    """Stops `transcribe` once it has judged its first attempt."""


def _fallback(model: Any, audio: Any, language: str) -> dict[str, Any]:
    """Return how `transcribe` judges its first attempt: whether it raises the temperature or reports silence.

    The audio is padded here, so that `transcribe` computes the same spectrogram as `decode`.
    """
    attempts: list[Any] = []
    temperatures: list[float] = []

    def decode(segment: Any, options: Any) -> Any:
        temperatures.append(options.temperature)
        if attempts:
            raise _DecidedError
        attempts.append(result := whisper.decode(model, segment, options))
        return result

    model.decode = decode
    options = {"language": language, "condition_on_previous_text": False, "fp16": False}
    with suppress(_DecidedError):
        whisper.transcribe(model, whisper.pad_or_trim(audio), temperature=(0.0, 0.2), **options)
    del model.decode
    (first,) = attempts
    return {
        "falls_back": temperatures[1:] == [0.2],
        "silent": first.no_speech_prob > 0.6 and first.avg_logprob <= -1.0,
        "tokens": first.tokens,
        "avg_logprob": first.avg_logprob,
        "no_speech_prob": first.no_speech_prob,
        "compression_ratio": first.compression_ratio,
    }


def _align(model: Any, mel: Any, tokens: list[int], clip: Any, language: str) -> list[dict[str, Any]]:
    """Return the word times for these tokens, before punctuation is merged."""
    tokenizer = get_tokenizer(model.is_multilingual, language=language, task="transcribe")
    words = find_alignment(model, tokenizer, tokens, mel[0], clip.size // 160)
    return [
        {"word": w.word, "start": float(w.start), "end": float(w.end), "probability": float(w.probability)}
        for w in words
    ]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
