"""The engine's threads: the limit on requests, the drain at close, cancelled requests, and units at once."""

import json
import threading
from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest
from numpy.typing import NDArray
from whisperline_models.engine.errors import OverloadedError, RequestCancelledError
from whisperline_models.engine.requests import LANES, Request
from whisperline_models.engine.result import Result
from whisperline_models.engine.transcription import Engine
from whisperline_models.engine.worker import Worker
from whisperline_models.gate import Clip

SILENCE = Request(np.zeros(16000, np.float32))
LIMIT_S = 60


class Answers:
    """Collects outcomes; `wait` waits for a number of them."""

    def __init__(self) -> None:
        self.outcomes: list[Result | Exception] = []
        self._came = threading.Condition()

    def __call__(self, outcome: Result | Exception) -> None:
        with self._came:
            self.outcomes.append(outcome)
            self._came.notify_all()

    def wait(self, count: int) -> None:
        with self._came:
            assert self._came.wait_for(lambda: len(self.outcomes) >= count, LIMIT_S)


@pytest.fixture(scope="module")
def worker(served: Engine) -> Iterator[Worker]:
    """A worker with the served engine, and with room in each lane for two requests more than it has threads."""
    worker = Worker(served, max_requests=served.n_threads + 2)
    yield worker
    worker.close()


def test_what_was_queued_is_answered_before_the_thread_ends(served: Engine) -> None:
    """Closing waits for every answer, and no request is accepted afterwards."""
    worker, answers = Worker(served, max_requests=5), Answers()
    for _ in range(5):
        worker.submit(SILENCE, answers)
    worker.close()
    assert [isinstance(outcome, Result) for outcome in answers.outcomes] == [True] * 5
    with pytest.raises(OverloadedError, match="closing"):
        worker.submit(SILENCE, answers)


def test_a_full_lane_refuses_and_takes_again(served: Engine, worker: Worker) -> None:
    """A request too many for its lane is refused until another is answered; the other lanes are not affected."""
    answers, gate = Answers(), threading.Event()
    held = threading.Semaphore(0)

    def hold(outcome: Result | Exception) -> None:
        held.release()
        gate.wait(LIMIT_S)
        answers(outcome)

    for _ in range(served.n_threads):
        worker.submit(SILENCE, hold)
        assert held.acquire(timeout=LIMIT_S)  # one more of the engine's threads waits in `hold`
    # Their requests are answered by now, and no longer count. What follows stays queued.
    for _ in range(served.n_threads + 2):
        worker.submit(SILENCE, answers)
    with pytest.raises(OverloadedError, match=f"{served.n_threads + 2} requests of lane final"):
        worker.submit(SILENCE, answers)
    worker.submit(Request(SILENCE.audio, lane="file"), answers)
    gate.set()
    answers.wait(2 * served.n_threads + 3)
    worker.submit(SILENCE, answers)
    answers.wait(2 * served.n_threads + 4)


def test_a_cancelled_request_costs_no_work(worker: Worker) -> None:
    """A request that is cancelled before its first unit of work ends without any; the next one is served."""
    answers = Answers()
    worker.submit(SILENCE, answers, lambda: True)
    worker.submit(SILENCE, answers)
    answers.wait(2)
    assert isinstance(answers.outcomes[0], RequestCancelledError)
    assert isinstance(answers.outcomes[1], Result)


def test_an_answer_that_cannot_be_delivered_disturbs_no_other(worker: Worker) -> None:
    """If delivering an answer fails, the requests in the same batch are not affected."""
    answers = Answers()

    def broken(outcome: Result | Exception) -> None:
        answers(outcome)
        raise ConnectionError("gone")

    worker.submit(SILENCE, broken)
    worker.submit(SILENCE, answers)
    answers.wait(2)
    assert all(isinstance(outcome, Result) for outcome in answers.outcomes)


def test_two_units_run_at_once(served: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two requests are encoded at the same time, each in a thread of its own."""
    if served.n_threads == 1:
        pytest.skip("this device does one unit at a time")
    worker, answers = Worker(served, max_requests=5), Answers()
    encode, both = served.encoder.mel, threading.Barrier(2)

    def encode_together(audio: NDArray[np.float32], window_s: float) -> NDArray[np.float32]:
        both.wait(LIMIT_S)  # raises if the other does not come
        return encode(audio, window_s)

    monkeypatch.setattr(served.encoder, "mel", encode_together)
    worker.submit(SILENCE, answers)
    worker.submit(SILENCE, answers)
    worker.close()
    assert [isinstance(outcome, Result) for outcome in answers.outcomes] == [True] * 2


def test_what_several_threads_do_gives_the_same_results(served: Engine, english: list[Clip]) -> None:
    """Requests of all lanes and with all kinds of units, in all threads, have the results that they have alone."""
    chosen = sorted(english, key=lambda clip: clip.duration_s)[:: max(1, len(english) // 12)][:12]
    options = [{"lane": lane, "words": words, "language": "en"} for lane in LANES for words in (True, False)]
    requests = [
        Request.parse(clip.read(), json.dumps(option).encode(), served.tokenizer.languages)
        for clip, option in zip(chosen, options * 2, strict=False)
    ]
    alone = [served.transcribe([request])[0] for request in requests]
    worker, together = Worker(served, max_requests=len(requests)), dict[int, Result | Exception]()
    for index, request in enumerate(requests):
        worker.submit(request, partial(together.__setitem__, index))
    worker.close()
    assert [_said(together[index]) for index in range(len(requests))] == [_said(result) for result in alone]


def _said(result: Result | Exception) -> tuple[object, ...]:
    assert isinstance(result, Result)
    return result.text, result.tokens, [(word.word, word.start_ms, word.end_ms) for word in result.words]


def test_a_failed_warm_up_is_raised(served: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The constructor of the worker raises the error of a failed warm-up."""
    monkeypatch.setattr(served, "warm_up", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        Worker(served, max_requests=5)
