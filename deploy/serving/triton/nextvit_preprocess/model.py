"""Triton Python backend: pictures' bytes [B, 1] -> pixels [B, 3, H, W]. pictures.py with what it
imports, and export.json, lie beside this file.
"""

import json
from pathlib import Path

import numpy as np
import triton_python_backend_utils as triton
from pictures import ImageError, Preprocess


class TritonPythonModel:
    def initialize(self, args):
        description = json.loads(
            (Path(__file__).parent / "export.json").read_text(encoding="utf-8")
        )
        limit = int(json.loads(args["model_config"])["parameters"]["max_pixels"]["string_value"])
        self.preprocess = Preprocess(
            description["PreProcess"]["transform_ops"],
            limit,
            description["Model"]["input"].get("min_size", 1),
        )

    def execute(self, requests):
        return [
            self.respond(triton.get_input_tensor_by_name(request, "IMAGE").as_numpy())
            for request in requests
        ]

    def respond(self, pictures):
        """The response for one request; a bad picture fails its request alone."""
        try:
            pixels = np.stack([self.preprocess(bytes(picture)) for picture in pictures[:, 0]])
        except ImageError as error:
            return triton.InferenceResponse(
                error=triton.TritonError(str(error), triton.TritonError.INVALID_ARG)
            )
        except Exception as error:  # of a transform: the other requests go on
            return triton.InferenceResponse(
                error=triton.TritonError(
                    f"preprocessing failed: {error}", triton.TritonError.INTERNAL
                )
            )
        return triton.InferenceResponse([triton.Tensor("PIXELS", pixels)])
