"""The thread around the engine: bounded, drained at its close, and rid of those who do not wait."""

import threading
from collections.abc import Iterator

import numpy as np
import pytest
from whisperline_models.engine.requests import Request, RequestCancelled, Result
from whisperline_models.engine.transcription import Engine
from whisperline_models.engine.worker import Overloaded, Worker

SILENCE = Request(np.zeros(16000, np.float32))
LIMIT_S = 60


class Answers:
    """Collects outcomes; `wait` until so many have come."""

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


@pytest.fixture
def worker(served: Engine) -> Iterator[Worker]:
    """Over the engine as served, with room for three of a lane."""
    worker = Worker(served, max_requests=3)
    yield worker
    worker.close()


def test_what_was_queued_is_answered_before_the_thread_ends(served: Engine) -> None:
    """Closing waits for every answer, and nothing is taken afterwards."""
    worker, answers = Worker(served, max_requests=5), Answers()
    for _ in range(5):
        worker.submit(SILENCE, answers)
    worker.close()
    assert [isinstance(outcome, Result) for outcome in answers.outcomes] == [True] * 5
    with pytest.raises(Overloaded, match="closing"):
        worker.submit(SILENCE, answers)


def test_a_full_lane_refuses_and_takes_again(worker: Worker) -> None:
    """The fourth of a lane is refused while three are held, another lane is not, and room comes back."""
    answers, gate = Answers(), threading.Event()
    held = threading.Event()

    def hold(outcome: Result | Exception) -> None:
        held.set()
        gate.wait(LIMIT_S)
        answers(outcome)

    worker.submit(SILENCE, hold)
    assert held.wait(LIMIT_S)  # the engine's thread now waits in `hold`, and what follows stays queued
    for _ in range(3):
        worker.submit(SILENCE, answers)
    with pytest.raises(Overloaded, match="3 requests of lane final"):
        worker.submit(SILENCE, answers)
    worker.submit(Request(SILENCE.audio, lane="file"), answers)
    gate.set()
    answers.wait(5)
    worker.submit(SILENCE, answers)
    answers.wait(6)


def test_who_has_gone_costs_no_work(worker: Worker) -> None:
    """A request that is cancelled before its turn ends at once; the one behind it is served."""
    answers = Answers()
    worker.submit(SILENCE, answers, lambda: True)
    worker.submit(SILENCE, answers)
    answers.wait(2)
    assert isinstance(answers.outcomes[0], RequestCancelled)
    assert isinstance(answers.outcomes[1], Result)


def test_an_answer_that_cannot_be_delivered_disturbs_nobody(worker: Worker) -> None:
    """What fails while one request is answered is not seen by those that share its steps."""
    answers = Answers()

    def broken(outcome: Result | Exception) -> None:
        answers(outcome)
        raise ConnectionError("gone")

    worker.submit(SILENCE, broken)
    worker.submit(SILENCE, answers)
    answers.wait(2)
    assert all(isinstance(outcome, Result) for outcome in answers.outcomes)
