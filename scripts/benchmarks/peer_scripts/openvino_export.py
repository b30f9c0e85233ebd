"""Exports a model for the OpenVINO backend of sentence-transformers, as its documentation shows.

    python openvino_export.py MODEL FOLDER

The last line of output is {"seconds"}.
"""

from __future__ import annotations

import json
import sys
import time

from sentence_transformers import SentenceTransformer


def main(model: str, folder: str) -> None:
    started = time.perf_counter()
    SentenceTransformer(model, device="cpu", backend="openvino", model_kwargs={"export": True}).save_pretrained(folder)
    print(json.dumps({"seconds": time.perf_counter() - started}))


if __name__ == "__main__":
    main(*sys.argv[1:])
