"""In the HTTP process: the workers, and the pictures that wait for them.

A worker is a process with the model, at the other end of a pipe. Through it pass JSON and the
uploads' own bytes, so that neither end runs what the other sends. What waits is run as one batch;
a worker that dies or hangs is replaced, and its requests are told.
"""

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Optional

import workers
from metrics import Metrics

IDLE_SECONDS = 0.25  # how soon it is noticed that a worker without work died
START_AGAIN_SECONDS = 1  # between attempts to start a worker
HANGS_AFTER = 5  # times the timeout of a request
Answer = tuple[int, str]  # HTTP status, JSON
LOST = (503, json.dumps({"detail": "the worker that had this request died; try again"}))


class LostError(Exception):
    """A worker died or hung."""


class RefusedError(Exception):
    """A worker cannot work with this model, and says why."""


class Job:
    """A picture that waits, what its client asks, and the future of its Answer."""

    def __init__(self, upload: bytes, query: dict[str, Any]):
        self.upload = upload
        self.query = query
        self.since = time.monotonic()
        self.answer: asyncio.Future = asyncio.get_running_loop().create_future()

    def set(self, answer: Answer) -> None:
        if not self.answer.done():  # after a timeout its client has been answered
            self.answer.set_result(answer)


class Worker:
    """A process with the model, and a thread of this one that waits for it: `call` runs what
    blocks there, one after the other.
    """

    def __init__(self, options: argparse.Namespace, description: dict):
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(
            target=workers.work, args=(theirs, options, description), daemon=True
        )
        self.process.start()
        theirs.close()
        self.thread = ThreadPoolExecutor(1)

    async def call(
        self, function: Callable, *arguments: Any, seconds: Optional[float] = None
    ) -> Any:
        """The value of a call that blocks. LostError after `seconds`: killing ends the call."""
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self.thread, function, *arguments)
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        done, _ = await asyncio.wait([future], timeout=seconds)
        if not done:
            raise LostError
        return future.result()

    async def kill(self) -> None:
        self.process.kill()
        await self.call(self.process.join)
        self.thread.shutdown()
        self.pipe.close()

    def start(self) -> None:
        """Return when it has the model. LostError or RefusedError."""
        refusal = self.receive()["refusal"]
        if refusal:
            raise RefusedError(refusal)

    def run(self, jobs: list[Job]) -> dict:
        """workers.Model.run of the jobs. LostError."""
        try:
            self.pipe.send_bytes(json.dumps([job.query for job in jobs]).encode())
            for job in jobs:
                self.pipe.send_bytes(job.upload)
        except OSError:
            raise LostError from None
        return self.receive()

    def receive(self) -> dict:
        try:
            return json.loads(self.pipe.recv_bytes())
        except (EOFError, OSError):
            raise LostError from None


class Pool:
    """All workers. on_refusal: called with the reason if the first worker of a place refuses."""

    def __init__(
        self,
        options: argparse.Namespace,
        description: dict,
        metrics: Metrics,
        on_refusal: Callable[[str], None],
    ):
        self.options = options
        self.description = description
        self.metrics = metrics
        self.on_refusal = on_refusal
        self.waiting: deque[Job] = deque()
        self.ready: set[Worker] = set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The workers, from their start to their end."""
        self.arrived = asyncio.Event()
        self.turn = asyncio.Lock()
        places = [asyncio.create_task(self.fill_place()) for _ in range(self.options.workers)]
        for place in places:
            place.add_done_callback(self.place_ended)
        try:
            yield
        finally:
            for place in places:
                place.cancel()
            await asyncio.wait(places)

    def place_ended(self, place: asyncio.Task) -> None:
        """It goes on until it is cancelled, but for a mistake in this file."""
        if not place.cancelled() and place.exception():
            self.on_refusal(repr(place.exception()))

    def healthy(self) -> bool:
        """Whether every worker has its model."""
        alive = [worker for worker in self.ready if worker.process.is_alive()]
        return len(alive) == self.options.workers

    async def predict(self, upload: bytes, query: dict[str, Any]) -> Answer:
        """The answer for a picture; 504 if there is none in time. query: what the client asks."""
        job = Job(upload, query)
        self.waiting.append(job)
        self.arrived.set()
        seconds = self.options.timeout
        try:
            return await asyncio.wait_for(job.answer, seconds)
        except asyncio.TimeoutError:  # noqa: UP041 - another class than TimeoutError in Python 3.10
            return 504, json.dumps({"detail": f"no answer within {seconds:g} s"})

    async def fill_place(self) -> None:
        """One worker, and after it another, for ever."""
        worked = False
        while True:
            try:
                async with self.worker() as worker:
                    worked = True
                    await self.give_work(worker)
            except LostError:
                tell("a worker died or hung; another is started")
            except (RefusedError, OSError) as error:
                if not worked:
                    return self.on_refusal(str(error))
                tell(f"a worker cannot start: {error}")
            await asyncio.sleep(START_AGAIN_SECONDS)

    @contextlib.asynccontextmanager
    async def worker(self) -> AsyncIterator[Worker]:
        """A worker that has the model; killed in the end."""
        worker = Worker(self.options, self.description)
        try:
            await worker.call(worker.start)
            self.metrics.worker_starts.inc()
            self.ready.add(worker)
            yield worker
        finally:
            self.ready.discard(worker)
            await worker.kill()

    async def give_work(self, worker: Worker) -> None:
        """Batch after batch, until the worker is lost."""
        while True:
            jobs = await self.take(worker)
            begun = time.monotonic()
            for job in jobs:
                self.metrics.queued.observe(begun - job.since)
            try:
                done = await worker.call(
                    worker.run, jobs, seconds=HANGS_AFTER * self.options.timeout
                )
            except LostError:
                for job in jobs:
                    job.set(LOST)
                raise
            self.metrics.preprocess_seconds.observe(done["preprocess_seconds"])
            if done["images"]:
                self.metrics.predict_seconds.observe(done["predict_seconds"])
                self.metrics.batch_size.observe(done["images"])
            for job, (status, content) in zip(jobs, done["answers"]):
                job.set((status, content))

    async def take(self, worker: Worker) -> list[Job]:
        """What waits, up to batch_size and for at most batch_ms after the first. LostError if the
        worker dies meanwhile.
        """
        jobs: list[Job] = []
        end = 0.0
        async with self.turn:
            while len(jobs) < self.options.batch_size and worker.process.is_alive():
                if self.waiting:
                    job = self.waiting.popleft()
                    if not job.answer.done():
                        jobs.append(job)
                        end = end or time.monotonic() + self.options.batch_ms / 1000
                    continue
                seconds = end - time.monotonic() if jobs else IDLE_SECONDS
                if seconds <= 0:
                    break
                self.arrived.clear()
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self.arrived.wait(), seconds)
        if not worker.process.is_alive():
            for job in jobs:
                job.set(LOST)
            raise LostError
        return jobs


def tell(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
