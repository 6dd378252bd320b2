"""What /metrics shows, as Prometheus text."""

from fastapi import Response

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """What /metrics shows. Each process writes files of its own in $PROMETHEUS_MULTIPROC_DIR, so
    that restarts lose nothing.
    """

    def __init__(self):
        # reads the variable when imported: not before main set it
        from prometheus_client import Counter, Gauge, Histogram

        self.requests = Counter(
            "nextvit_requests",
            "Requests to /predict, by HTTP status (499: the client hung up)",
            ["status"],
        )
        self.in_flight = Gauge(
            "nextvit_requests_in_flight",
            "Requests being received, waiting or run",
            multiprocess_mode="livesum",
        )
        self.seconds = Histogram(
            "nextvit_request_seconds",
            "From the first header to the last byte of the answer",
            buckets=SECONDS,
        )
        self.queued = Histogram(
            "nextvit_queue_seconds", "From the upload's end until a worker has it", buckets=SECONDS
        )
        self.batch_size = Histogram(
            "nextvit_batch_size",
            "Pictures run at once; _count is the number of batches",
            buckets=(1, 2, 4, 8, 16, 32, 64),
        )
        self.preprocess_seconds = Histogram(
            "nextvit_preprocess_seconds", "Decoding and preprocessing one batch", buckets=SECONDS
        )
        self.predict_seconds = Histogram(
            "nextvit_predict_seconds", "The model, one batch", buckets=SECONDS
        )
        self.worker_starts = Counter(
            "nextvit_worker_starts", "Workers started; more than --workers: some were replaced"
        )


def metrics_text() -> Response:
    """The answer to GET /metrics: the sum over all processes."""
    from prometheus_client import (
        CONTENT_TYPE_LATEST,
        CollectorRegistry,
        generate_latest,
        multiprocess,
    )

    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)
    return Response(generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})
