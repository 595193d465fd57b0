"""The engine's thread: its limit on requests, its drain at close, and its handling of cancelled requests."""

import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from whisperline_models.engine.errors import OverloadedError, RequestCancelledError
from whisperline_models.engine.requests import Request
from whisperline_models.engine.result import Result
from whisperline_models.engine.transcription import Engine
from whisperline_models.engine.worker import Worker

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
    """A worker with the served engine and room for three requests of each lane."""
    worker = Worker(served, max_requests=3)
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


def test_a_full_lane_refuses_and_takes_again(worker: Worker) -> None:
    """The fourth request of a lane is refused until one of three is answered; another lane is not affected."""
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
    with pytest.raises(OverloadedError, match="3 requests of lane final"):
        worker.submit(SILENCE, answers)
    worker.submit(Request(SILENCE.audio, lane="file"), answers)
    gate.set()
    answers.wait(5)
    worker.submit(SILENCE, answers)
    answers.wait(6)


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


class Scripted:
    """A stand-in engine that does one request per unit and records when each arrived."""

    def __init__(self) -> None:
        self.arrived_s: list[float] = []
        self.begun, self.gate = threading.Event(), threading.Event()
        self._queue: list[Callable[[str], None]] = []

    def warm_up(self) -> None:
        self.thread = threading.get_ident()

    def submit(
        self, _request: Request, finish: Callable[[str], None], _gone: object, *, arrived_s: float, timeline: object
    ) -> None:
        self.arrived_s.append(arrived_s)
        self._queue.append(finish)

    def work(self) -> bool:
        assert self.thread == threading.get_ident()  # a GPU's captured graphs belong to a thread
        if not self._queue:
            return False
        self.begun.set()
        assert self.gate.wait(LIMIT_S)
        self._queue.pop(0)("done")
        return True


def test_a_request_arrives_when_it_is_submitted() -> None:
    """A request's arrival is the time of its submission, even during a unit of work."""
    engine, answers = Scripted(), Answers()
    worker = Worker(engine, max_requests=5)  # type: ignore[arg-type]
    worker.submit(SILENCE, answers)
    assert engine.begun.wait(LIMIT_S)
    worker.submit(SILENCE, answers)
    before_s = time.monotonic()
    engine.gate.set()
    worker.close()
    assert len(engine.arrived_s) == 2
    assert max(engine.arrived_s) <= before_s


def test_a_failed_warm_up_is_raised() -> None:
    """The constructor of the worker raises the error of a failed warm-up."""
    engine = Scripted()
    engine.warm_up = lambda: 1 / 0  # type: ignore[assignment,method-assign]
    with pytest.raises(ZeroDivisionError):
        Worker(engine, max_requests=5)  # type: ignore[arg-type]
