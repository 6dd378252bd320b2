"""In the workers: what waits is run as one batch, and each request is answered by itself."""

import argparse
import signal
import time
from queue import Empty
from typing import Annotated

import litserve
from classifier import Classifier, best
from fastapi import Depends
from litserve.loops.base import LitLoop
from litserve.utils import LitAPIStatus, LoopResponseType, PickleableHTTPException
from metrics import Metrics
from pictures import ImageError, Preprocess, one_line
from uploads import PATH, read_upload

# a worker killed while it waits at the queue takes what comes within this along
IDLE_SECONDS = 0.25


class Batching(LitLoop):
    """Take what waits, up to max_batch_size and for at most batch_timeout after the first; answer
    each request by itself.

    LitServe's own loop asks the queue a thousand times a second, and an error in one picture fails
    its whole batch.
    """

    def run(
        self,
        lit_api,
        device,
        worker_id,
        request_queue,
        transport,
        workers_setup_status,
        callback_runner,
    ):
        def answer(request, data, status):
            self.put_response(
                transport, request[0], request[1], data, status, LoopResponseType.REGULAR
            )

        def refuse(request, status, reason):
            answer(request, PickleableHTTPException(status, reason), LitAPIStatus.ERROR)

        requests = self.collect(
            lit_api, request_queue, lambda request: answer(request, (), LitAPIStatus.START)
        )
        start = time.monotonic()
        accepted, images = [], []
        for request in requests:
            waited = start - request[2]
            lit_api.metrics.queued.observe(waited)
            if waited > lit_api.request_timeout:
                refuse(
                    request,
                    504,
                    f"waited longer than {lit_api.request_timeout:g} s; the service is overloaded",
                )
                continue
            try:
                images.append(lit_api.decode_request(request[3]))
                accepted.append(request)
            except ImageError as error:
                refuse(request, error.status, str(error))
        lit_api.metrics.preprocess_seconds.observe(time.monotonic() - start)
        if not accepted:
            return
        try:
            rows = lit_api.predict(images)
        except Exception as error:
            # whatever the runtime raises: these requests fail, the service lives
            for request in accepted:
                refuse(request, 500, f"the model failed: {one_line(error)[:200]}")
            return
        for request, row in zip(accepted, rows):
            answer(request, lit_api.encode_response(row, request[3][1], len(rows)), LitAPIStatus.OK)

    @staticmethod
    def collect(lit_api, request_queue, taken):
        """Requests (HTTP process, id, time, upload), one or more, each passed to `taken` the moment
        it leaves the queue.
        """
        requests: list[tuple] = []
        end = 0.0
        while len(requests) < lit_api.max_batch_size:
            timeout = max(end - time.monotonic(), 0) if requests else IDLE_SECONDS
            try:
                requests.append(request_queue.get(timeout=timeout))
            except Empty:
                if requests:
                    break
                continue
            taken(requests[-1])
            end = end or time.monotonic() + lit_api.batch_timeout
        return requests


class Predict(litserve.LitAPI):
    """One worker. options: the command line's."""

    def __init__(self, options: argparse.Namespace, description: dict):
        super().__init__(
            max_batch_size=options.batch_size,
            batch_timeout=options.batch_ms / 1000,
            api_path=PATH,
            loop=Batching(),
        )
        self.options = options
        self.description = description

    def setup(self, device):
        # Ctrl-C reaches the whole group; the main process ends its workers
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        model = self.description["Model"]
        topk = self.description["PostProcess"]["Topk"]
        self.names = topk["label_list"]
        self.topk = topk["topk"]
        self.preprocess = Preprocess(
            self.description["PreProcess"]["transform_ops"],
            self.options.max_pixels,
            model["input"].get("min_size", 1),
        )
        self.classifier = Classifier(
            self.options.model, self.description, self.options.device, self.options.threads
        )
        self.metrics = Metrics()
        self.metrics.worker_starts.inc()

    def decode_request(self, request: Annotated[tuple, Depends(read_upload)]):
        return self.preprocess(request[0])

    def predict(self, images):
        start = time.monotonic()
        rows = self.classifier(images)
        self.metrics.predict_seconds.observe(time.monotonic() - start)
        self.metrics.batch_size.observe(len(images))
        return rows

    def encode_response(self, row, topk, batch_size):
        return {"predictions": best(row, topk or self.topk, self.names), "batch_size": batch_size}
