"""In a worker: the model, and the answers to batches of pictures that the HTTP process sends."""

import argparse
import contextlib
import json
import signal
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from classifier import Classifier, best
from decoding import one_line
from fields import task_of
from pictures import ImageError, Preprocess
from scenes import DenseModel

Answer = tuple[int, str]  # HTTP status, JSON


def work(pipe: Connection, options: argparse.Namespace, description: dict) -> None:
    """The whole of a worker: answer what comes through `pipe` until it is closed. pool.Worker is at
    its other end.
    """
    # Ctrl-C reaches the whole group; the HTTP process ends its workers
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    model = refusal = None
    try:
        classifies = task_of(description) == "classification"
        model = (Model if classifies else SceneModel)(options, description)
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        refusal = one_line(error)
    except Exception as error:  # of a runtime that cannot load the model
        traceback.print_exc(file=sys.stderr)
        refusal = one_line(f"{type(error).__name__}: {error}")
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        pipe.send_bytes(json.dumps({"refusal": refusal}).encode())
        while model:
            queries = json.loads(pipe.recv_bytes())
            uploads = [pipe.recv_bytes() for _ in queries]
            pipe.send_bytes(json.dumps(model.run(uploads, queries)).encode())


class Model:
    """The exported model with its preprocessing. options: the command line's. ValueError, OSError,
    RuntimeError or ImportError if it cannot be used.
    """

    def __init__(self, options: argparse.Namespace, description: dict):
        model = description["Model"]
        topk = description["PostProcess"]["Topk"]
        self.names = topk["label_list"]
        self.topk = topk["topk"]
        self.preprocess = Preprocess(
            description["PreProcess"]["transform_ops"],
            options.max_pixels,
            model["input"].get("min_size", 1),
        )
        self.classifier = Classifier(options.model, description, options.device, options.threads)

    def run(self, uploads: list[bytes], queries: list[dict[str, Any]]) -> dict:
        """{answers, images: how many were run together, preprocess_seconds, predict_seconds}.
        Whatever happens to one picture is its own answer's. queries: what each client asks.
        """
        start = time.monotonic()
        prepared = [prepared_by(self.preprocess, upload) for upload in uploads]
        images = [image for image in prepared if isinstance(image, np.ndarray)]
        ready = time.monotonic()
        rows = iter(self.predict(images))
        return {
            "answers": [
                self.answer(next(rows), query.get("topk"), len(images))
                if isinstance(image, np.ndarray)
                else image
                for image, query in zip(prepared, queries)
            ],
            "images": len(images),
            "preprocess_seconds": ready - start,
            "predict_seconds": time.monotonic() - ready,
        }

    def predict(self, images: list[np.ndarray]) -> list[np.ndarray] | list[Answer]:
        """Probabilities for each image; if the runtime fails, an answer that says so."""
        try:
            return self.classifier(images)
        except Exception as error:
            # whatever the runtime raises: these requests fail, the service lives
            traceback.print_exc(file=sys.stderr)
            return [refused(500, f"the model failed: {one_line(error)[:200]}")] * len(images)

    def answer(self, row: np.ndarray | Answer, topk: int | None, count: int) -> Answer:
        if not isinstance(row, np.ndarray):
            return row
        predictions = best(row, topk or self.topk, self.names)
        return 200, json.dumps({"predictions": predictions, "batch_size": count})


class SceneModel:
    """A detector or segmentor, which takes one picture at a time; see Model."""

    def __init__(self, options: argparse.Namespace, description: dict):
        self.model = DenseModel(options, description)

    def run(self, uploads: list[bytes], queries: list[dict[str, Any]]) -> dict:
        """See Model.run; predict_seconds includes the postprocessing."""
        answers, images = [], 0
        preprocess_seconds = predict_seconds = 0.0
        for upload, query in zip(uploads, queries):
            start = time.monotonic()
            prepared = prepared_by(self.model.preprocess, upload)
            ready = time.monotonic()
            preprocess_seconds += ready - start
            if isinstance(prepared[0], int):  # an Answer
                answers.append(prepared)
                continue
            answers.append(self.answer(*prepared, query))
            predict_seconds += time.monotonic() - ready
            images += 1
        return {
            "answers": answers,
            "images": images,
            "preprocess_seconds": preprocess_seconds,
            "predict_seconds": predict_seconds,
        }

    def answer(self, pixels: np.ndarray, prepared: Any, query: dict[str, Any]) -> Answer:
        try:
            outputs = self.model.outputs_for(prepared)
            return 200, json.dumps(self.model.answer(pixels, prepared, outputs, query))
        except Exception as error:
            # whatever the runtime raises: this request fails, the service lives
            traceback.print_exc(file=sys.stderr)
            return refused(500, f"the model failed: {one_line(error)[:200]}")


def prepared_by(preprocess: Callable[[bytes], Any], upload: bytes) -> Any:
    """The model's input, or the Answer to a picture that gives none."""
    try:
        return preprocess(upload)
    except ImageError as error:
        return refused(error.status, str(error))
    except Exception as error:
        # whatever a decoder or a transform raises, the others go on
        traceback.print_exc(file=sys.stderr)
        return refused(500, f"preprocessing failed: {one_line(error)[:200]}")


def refused(status: int, reason: str) -> Answer:
    return status, json.dumps({"detail": reason})
