"""In a worker: the model, and the answers to batches of pictures that the HTTP process sends."""

import argparse
import contextlib
import json
import signal
import sys
import time
import traceback
from multiprocessing.connection import Connection
from typing import Optional

import numpy as np
from classifier import Classifier, best
from decoding import one_line
from pictures import ImageError, Preprocess

Answer = tuple[int, str]  # HTTP status, JSON


def work(pipe: Connection, options: argparse.Namespace, description: dict) -> None:
    """The whole of a worker: answer what comes through `pipe` until it is closed. pool.Worker is at
    its other end.
    """
    # Ctrl-C reaches the whole group; the HTTP process ends its workers
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    model = refusal = None
    try:
        model = Model(options, description)
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        refusal = one_line(error)
    except Exception as error:  # of a runtime that cannot load the model
        traceback.print_exc(file=sys.stderr)
        refusal = one_line(f"{type(error).__name__}: {error}")
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        pipe.send_bytes(json.dumps({"refusal": refusal}).encode())
        while model:
            topks = json.loads(pipe.recv_bytes())
            uploads = [pipe.recv_bytes() for _ in topks]
            pipe.send_bytes(json.dumps(model.run(uploads, topks)).encode())


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

    def run(self, uploads: list[bytes], topks: list[Optional[int]]) -> dict:
        """{answers, images: how many were run together, preprocess_seconds, predict_seconds}.
        Whatever happens to one picture is its own answer's.
        """
        start = time.monotonic()
        prepared = [self.prepare(upload) for upload in uploads]
        images = [image for image in prepared if isinstance(image, np.ndarray)]
        ready = time.monotonic()
        rows = iter(self.predict(images))
        return {
            "answers": [
                self.answer(next(rows), topk, len(images))
                if isinstance(image, np.ndarray)
                else image
                for image, topk in zip(prepared, topks)
            ],
            "images": len(images),
            "preprocess_seconds": ready - start,
            "predict_seconds": time.monotonic() - ready,
        }

    def prepare(self, upload: bytes) -> np.ndarray | Answer:
        """The model's input, or the answer to a picture that gives none."""
        try:
            return self.preprocess(upload)
        except ImageError as error:
            return refused(error.status, str(error))
        except Exception as error:
            # whatever a decoder or a transform raises, the others go on
            traceback.print_exc(file=sys.stderr)
            return refused(500, f"preprocessing failed: {one_line(error)[:200]}")

    def predict(self, images: list[np.ndarray]) -> list[np.ndarray] | list[Answer]:
        """Probabilities for each image; if the runtime fails, an answer that says so."""
        try:
            rows = self.classifier(images)
            for row in rows:
                if len(row) != len(self.names):
                    raise ValueError(f"{len(row)} scores for {len(self.names)} class names")
            return rows
        except Exception as error:
            # whatever the runtime raises: these requests fail, the service lives
            traceback.print_exc(file=sys.stderr)
            return [refused(500, f"the model failed: {one_line(error)[:200]}")] * len(images)

    def answer(self, row: np.ndarray | Answer, topk: Optional[int], count: int) -> Answer:
        if not isinstance(row, np.ndarray):
            return row
        predictions = best(row, topk or self.topk, self.names)
        return 200, json.dumps({"predictions": predictions, "batch_size": count})


def refused(status: int, reason: str) -> Answer:
    return status, json.dumps({"detail": reason})
