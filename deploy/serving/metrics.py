"""What /metrics shows, as Prometheus text. All is counted in the HTTP process, so that nothing is
lost when a worker is replaced.
"""

from fastapi import Response
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """What /metrics shows."""

    def __init__(self):
        disable_created_metrics()
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "nextvit_requests",
            "Requests to /predict, by HTTP status (499: the client hung up)",
            ["status"],
            registry=registry,
        )
        self.in_flight = Gauge(
            "nextvit_requests_in_flight",
            "Requests being received, waiting or run",
            registry=registry,
        )
        self.uploads = Gauge(
            "nextvit_uploads", "Of them, those whose upload is not in yet", registry=registry
        )
        self.connections = Gauge("nextvit_connections", "Open connections", registry=registry)
        self.seconds = Histogram(
            "nextvit_request_seconds",
            "From the first header to the last byte of the answer",
            buckets=SECONDS,
            registry=registry,
        )
        self.queued = Histogram(
            "nextvit_queue_seconds",
            "From the upload's end until a worker has it",
            buckets=SECONDS,
            registry=registry,
        )
        self.batch_size = Histogram(
            "nextvit_batch_size",
            "Pictures run at once; _count is the number of batches",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=registry,
        )
        self.preprocess_seconds = Histogram(
            "nextvit_preprocess_seconds",
            "Decoding and preprocessing one batch",
            buckets=SECONDS,
            registry=registry,
        )
        self.predict_seconds = Histogram(
            "nextvit_predict_seconds", "The model, one batch", buckets=SECONDS, registry=registry
        )
        self.worker_starts = Counter(
            "nextvit_worker_starts",
            "Workers started; more than --workers: some were replaced",
            registry=registry,
        )

    def response(self) -> Response:
        """The answer to GET /metrics."""
        text = generate_latest(self.registry)
        return Response(text, headers={"Content-Type": CONTENT_TYPE_LATEST})
