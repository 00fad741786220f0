"""Writes the files of a bundle: graphs, token tables, the reranker's head, and the Hugging Face files.

Nothing here decides: a `PartLayout` says which file each part uses, and what two parts share is written once.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from qvl_local.runtime.model.bundle import Role
from qvl_local.runtime.model.head import answer_tokens

from .checkpoint import EMBEDDINGS, Checkpoint
from .linear import narrow
from .onnx_file import ElementType, Model, Place, write_model

HEAD_FILE = "token_head.npy"

# What a Hugging Face repository of these models may hold and a bundle keeps; folders end in "/".
COPIED = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "additional_chat_templates/",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "processor_config.json",
    "modules.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
    "1_Pooling/",
    "qvl_fusion.json",
    "LICENSE",
)

_ROWS_AT_ONCE = 8192


@dataclass(frozen=True, slots=True)
class PartLayout:
    """Files of one part, relative to the bundle with forward slashes. Equal names mean one shared file."""

    folder: str
    vision: str
    decoder: str
    table: str
    head: str | None


def write_graph(
    model: Model, path: Path, *, written: Callable[[int], None], stored: dict[str, Place]
) -> None:
    """Save a graph as `path` with its weights in `path`_data, reading and writing one tensor at a time.

    `written` hears the bytes of each tensor. `stored` is what earlier graphs of the folder have written, so
    that an equal tensor is kept once.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_model(model, path, on_weight=written, stored=stored)


def write_table(
    checkpoint: Checkpoint, path: Path, dtype: ElementType, *, written: Callable[[int], None]
) -> None:
    """The token embedding table, raw, little-endian, row by row."""
    text = checkpoint.config.text
    stored = checkpoint.stored(EMBEDDINGS, (text.vocab_size, text.hidden_size))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        for start in range(0, text.vocab_size, _ROWS_AT_ONCE):
            rows = narrow(stored.rows(slice(start, start + _ROWS_AT_ONCE)), dtype, EMBEDDINGS)
            rows.tofile(stream)
            written(rows.nbytes)


def write_head(checkpoint: Checkpoint, path: Path) -> None:
    """float32 [H]: what the logit of "yes" weighs more than that of "no".

    Raises:
        CheckpointError: the tokenizer has no single token for one of the words.
    """
    ids = answer_tokens(checkpoint.folder, vocabulary=checkpoint.config.text.vocab_size)
    yes, no = checkpoint.stored(checkpoint.head_name()).rows(ids)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, yes - no)


def copy_files(checkpoint: Checkpoint, folder: Path) -> None:
    """Copy configuration, tokenizer, templates and pixel settings."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        source = checkpoint.folder / name
        if name.endswith("/"):
            if source.is_dir():
                for file in sorted(source.iterdir()):
                    if file.is_file():
                        (folder / name).mkdir(exist_ok=True)
                        shutil.copyfile(file, folder / name / file.name)
        elif source.is_file():
            shutil.copyfile(source, folder / name)


def write_pooling(folder: Path, *, width: int) -> None:
    """Describe the embedder to sentence-transformers, unless it is: last token, unit length."""
    modules = folder / "modules.json"
    if modules.exists():
        return
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    _write_json(
        modules,
        [
            {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for number, (path, kind) in enumerate(kinds)
        ],
    )
    (folder / "1_Pooling").mkdir(exist_ok=True)
    _write_json(
        folder / "1_Pooling" / "config.json",
        {
            "word_embedding_dimension": width,
            "pooling_mode_cls_token": False,
            "pooling_mode_mean_tokens": False,
            "pooling_mode_max_tokens": False,
            "pooling_mode_lasttoken": True,
            "include_prompt": True,
        },
    )


def lay_out(
    roles: list[Role],
    *,
    vision: str,
    decoder: str,
    shared_vision: bool,
    shared_table: bool,
    shared_decoder: bool,
) -> dict[Role, PartLayout]:
    """Where everything goes. The embedder lives at the root, and so does a reranker that is alone."""
    layouts: dict[Role, PartLayout] = {}
    for role in roles:
        root = role == "embedder" or len(roles) == 1
        own_vision = "" if root or shared_vision else "reranker_"
        own_table = "" if root or shared_table else "reranker/"
        layouts[role] = PartLayout(
            folder="." if root else role,
            vision=f"onnx/{own_vision}vision_encoder_{vision}.onnx",
            decoder=f"onnx/{'decoder' if shared_decoder else role}_{decoder}.onnx",
            table=f"{own_table}embed_tokens_{decoder}.bin",
            head=HEAD_FILE if role == "reranker" else None,
        )
    return layouts


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
