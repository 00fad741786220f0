"""`qvl_fusion.json`: how much the cosine weighs beside the reranker's logit, where its makers measured it."""

from __future__ import annotations

import json
import math
from pathlib import Path

from ..errors import CheckpointError

FILE = "qvl_fusion.json"


def read_fusion(folder: Path) -> dict[str, float]:
    """{"cosine_weight": w} of a reranker's checkpoint folder, empty when it says nothing.

    Raises:
        CheckpointError: the file is there and holds something else.
    """
    path = folder / FILE
    if not path.is_file():
        return {}
    try:
        weight = float(json.loads(path.read_text(encoding="utf-8"))["weight"])
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f'{path}: is not {{"weight": number}} ({error}).') from error
    if not math.isfinite(weight):
        raise CheckpointError(f"{path}: the weight {weight} is not a finite number.")
    return {"cosine_weight": weight}
