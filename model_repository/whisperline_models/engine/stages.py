"""Do a unit of work for its jobs and move them on through the stages: encode, decode and align.

    ENCODE ──window──▶ DECODE ──settled, with words───▶ ALIGN ──▶ DONE
      ▲                 │  ▲└───settled, no words───────────────────▲
      │                 └──┘ another temperature, or neither context nor beams
      └─────────────────┘    a window of another length, or the audio after a cut

A job begins in stage ENCODE. Every later change of its stage is made here, or in a method of `Job` called from here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from .audio import SAMPLE_RATE
from .beams import BeamRow
from .decoding import Row
from .fallback import is_settled, judge
from .jobs import find_cut
from .result import Part, align_words, estimate_words
from .schedule import Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .aligner import Aligner
    from .decoding import Decoder
    from .encoder import Encoder
    from .jobs import Job
    from .tokenizer import Tokenizer


class Stages:
    """Runs the graphs of each stage for jobs."""

    def __init__(
        self,
        encoder: Encoder,
        decoder: Decoder,
        open_beam_decoder: Callable[[], Decoder],
        aligner: Aligner,
        tokenizer: Tokenizer,
    ) -> None:
        self._encoder, self._decoder, self._aligner, self._tokenizer = encoder, decoder, aligner, tokenizer
        self._open_beam_decoder = open_beam_decoder

    def run(self, stage: Stage, jobs: Sequence[Job]) -> None:
        """Do one unit of work for jobs that are all in this stage."""
        if stage is Stage.ENCODE:
            self.encode(jobs)
        elif stage is Stage.DECODE:
            self.decode(jobs)
        else:
            self.align(jobs)

    def encode(self, jobs: Sequence[Job]) -> None:
        """Run one piece of the encoder over the windows of these jobs, whose `batch_key` is the same."""
        encoder, piece = self._encoder, jobs[0].pieces_done
        if piece == 0:
            states = [encoder.mel(job.audio, job.attempt.window_s) for job in jobs]
        else:
            states = [job.state for job in jobs]
        for job, state in zip(jobs, encoder.advance(piece, states), strict=True):
            job.pieces_done = piece + 1
            if job.pieces_done < encoder.n_pieces:
                job.state = state
            else:
                job.state, job.window = None, state
                self._begin_decoding(job)

    def decode(self, jobs: Sequence[Job]) -> None:
        """Choose the next tokens of every row, and process the results of rows that are finished.

        Of rows of beam search, only the first ones that have slots take part.
        """
        by_row = {id(job.row): job for job in jobs}
        rows = [job.row for job in jobs if job.row is not None]
        greedy = [row for row in rows if not isinstance(row, BeamRow)]
        beams = [row for row in rows if isinstance(row, BeamRow)]
        finished = self._decoder.step(greedy) if greedy else []
        if beams:
            decoder = self._open_beam_decoder()
            finished += decoder.step(beams[: decoder.n_slots])
        for row in finished:
            self._take_result(by_row[id(row)], row)

    def align(self, jobs: Sequence[Job]) -> None:
        """Time the words of all parts of these jobs."""
        for job in jobs:
            for part in job.parts_with_speech:
                part.words = align_words(part, job.request.task, self._aligner, self._tokenizer)
            job.stage = Stage.DONE

    def _begin_decoding(self, job: Job) -> None:
        task = job.decoding_task(self._tokenizer)
        job.row = BeamRow(task, self._tokenizer) if task.beam_size > 1 else Row(task, self._tokenizer)
        job.stage = Stage.DECODE

    def _take_result(self, job: Job, row: Row) -> None:
        """Judge a row's result and move its job on: to another attempt, to its next part, or towards its end."""
        tokenizer, attempt, result = self._tokenizer, job.attempt, row.result()
        text_tokens = [token for token in result.tokens if token < tokenizer.eot]
        audio_s = (job.audio.size - job.prefix_samples) / SAMPLE_RATE
        text, has_context = tokenizer.decode(text_tokens), job.has_context
        verdict = judge(result, text, text_tokens, audio_s, has_context=has_context)
        if not is_settled(result, verdict, has_context=has_context, has_beams=isinstance(row, BeamRow)):
            job.begin_plainly(result.language)
            if job.stage is Stage.DECODE:
                self._begin_decoding(job)
            return
        settled = job.fallback.take(attempt, result, verdict)
        if settled is None:
            next_attempt = job.fallback.next_attempt()
            if next_attempt.window_s != attempt.window_s:
                job.begin_encoding(next_attempt)
            else:
                job.attempt = next_attempt
                self._begin_decoding(job)
            return
        kept = settled.result
        cut = None if settled.silent else find_cut(kept, job.audio.size, tokenizer)
        if cut:
            kept = cut.apply(kept)
        part = Part(
            seek=job.seek,
            n_samples=job.audio.size,
            window=job.window,
            window_s=attempt.window_s,
            result=kept,
            silent=settled.silent,
            prefix=row.prompt.tokens[row.prompt.text_index :],
            prefix_samples=job.prefix_samples,
        )
        if job.request.words == "rough" and not part.silent:
            part.words = estimate_words(part, tokenizer)
        job.parts.append(part)
        if cut:
            # A request is in one language: the one detected in its first part applies to the others.
            job.request = replace(job.request, language=kept.language, prefix="", prefix_ms=0)
            job.begin_part(job.seek + cut.n_samples)
        elif job.request.words is True and job.parts_with_speech:
            job.stage = Stage.ALIGN
        else:
            job.stage = Stage.DONE
