"""Whole checkpoints in other dresses: what comes out is what the plain one gives."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from qvl_local.export.checkpoint import Checkpoint
from qvl_local.runtime.errors import CheckpointError
from qvl_local.runtime.model.config import load_config
from qvl_local.runtime.model.pixels import load_budget
from qvl_local.runtime.model.processor import Processor
from qvl_local.runtime.model.request import parse_request
from safetensors.numpy import load_file

OTHER_CALLER = "<Instruct>: {{ instruction }}<Query>:{{ query_content }}<Document>:{{ document_content }}"

Dress = Callable[[Path], None]


def edit(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    raw = json.loads(file.read_text(encoding="utf-8"))
    change(raw)
    file.write_text(json.dumps(raw), encoding="utf-8")


def rope_parameters(folder: Path) -> None:
    """As transformers 5 writes config.json."""

    def change(raw: dict[str, Any]) -> None:
        text = raw["text_config"]
        text["rope_parameters"] = {**text.pop("rope_scaling"), "rope_theta": text.pop("rope_theta")}

    edit(folder / "config.json", change)


def one_processor_config(folder: Path) -> None:
    parts = {}
    for part, name in (("image_processor", "preprocessor"), ("video_processor", "video_preprocessor")):
        file = folder / f"{name}_config.json"
        parts[part] = json.loads(file.read_text(encoding="utf-8"))
        file.unlink()
    (folder / "processor_config.json").write_text(json.dumps(parts), encoding="utf-8")


def template_in_json(folder: Path) -> None:
    plain = folder / "chat_template.jinja"
    (folder / "chat_template.json").write_text(
        json.dumps({"chat_template": plain.read_text(encoding="utf-8")}), encoding="utf-8"
    )
    plain.unlink()


def template_in_the_tokenizer(folder: Path) -> None:
    plain = folder / "chat_template.jinja"
    source = plain.read_text(encoding="utf-8")
    edit(folder / "tokenizer_config.json", lambda raw: raw.update(chat_template=source))
    plain.unlink()


def template_among_named_ones(folder: Path) -> None:
    """A template of messages under a name, beside one that is written for another caller."""
    named = folder / "additional_chat_templates"
    named.mkdir()
    (folder / "chat_template.jinja").rename(named / "messages.jinja")
    (named / "first.jinja").write_text(OTHER_CALLER, encoding="utf-8")


def template_called_reranker(folder: Path) -> None:
    """The only template is reranker.jinja."""
    named = folder / "additional_chat_templates"
    named.mkdir()
    (folder / "chat_template.jinja").rename(named / "reranker.jinja")


def no_post_processor(folder: Path) -> None:
    edit(folder / "tokenizer.json", lambda raw: raw.update(post_processor=None))


def vocabulary_beside(folder: Path) -> None:
    """vocab.json and merges.txt beside tokenizer.json, as the hub has them; they are not read."""
    (folder / "vocab.json").write_text("{}", encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")


def everything_at_once(folder: Path) -> None:
    for dress in (rope_parameters, one_processor_config, template_in_json, vocabulary_beside):
        dress(folder)


DRESSES = [
    rope_parameters,
    one_processor_config,
    template_in_json,
    template_in_the_tokenizer,
    template_among_named_ones,
    template_called_reranker,
    vocabulary_beside,
    everything_at_once,
]


@pytest.fixture
def dressed(tiny: dict[str, Path], tmp_path: Path) -> Callable[..., Path]:
    """A copy of one of qvl-tiny's checkpoints, changed."""

    def make(role: str, dress: Dress | None = None) -> Path:
        folder = tmp_path / role / ("plain" if dress is None else dress.__name__)
        shutil.copytree(tiny[role], folder)
        if dress is not None:
            dress(folder)
        return folder

    return make


def prompt_of(folder: Path, role: str) -> tuple[list[int], Any]:
    """Token ids and pixels of a photo with words, by the checkpoint's own files."""
    processor = Processor(folder, load_config(folder), load_budget(folder), role=role)  # type: ignore[arg-type]
    photo = Image.linear_gradient("L").resize((150, 110)).convert("RGB")
    given = processor.prepare(parse_request({"image": photo, "text": "two dogs"}, name="input"))
    prompt = (
        processor.embedding_prompt(given, instruction=None)
        if role == "embedder"
        else processor.reranking_prompt(given, given, instruction=None)
    )
    return [int(token) for token in prompt.ids], [vision.frames for vision in prompt.visions]


@pytest.mark.parametrize("role", ["embedder", "reranker"])
@pytest.mark.parametrize("dress", DRESSES, ids=lambda dress: dress.__name__)
def test_another_dress_gives_the_same_prompt_from_the_same_numbers(
    role: str, dress: Dress, dressed: Callable[..., Path]
) -> None:
    plain, other = dressed(role), dressed(role, dress)
    assert load_config(other) == load_config(plain)
    assert load_budget(other) == load_budget(plain)
    ids, frames = prompt_of(plain, role)
    other_ids, other_frames = prompt_of(other, role)
    assert other_ids == ids
    assert all(np.array_equal(one, two) for one, two in zip(other_frames, frames, strict=True))


def test_the_embedder_ends_on_one_endoftext_with_and_without_a_post_processor(
    dressed: Callable[..., Path],
) -> None:
    plain, _ = prompt_of(dressed("embedder"), "embedder")
    bare, _ = prompt_of(dressed("embedder", no_post_processor), "embedder")
    assert bare == plain
    assert bare.count(bare[-1]) == 1


def test_a_template_for_another_caller_alone_is_no_template(dressed: Callable[..., Path]) -> None:
    def other_caller_only(folder: Path) -> None:
        template_called_reranker(folder)
        (folder / "additional_chat_templates" / "reranker.jinja").write_text(OTHER_CALLER, encoding="utf-8")

    with pytest.raises(CheckpointError, match="no chat template"):
        prompt_of(dressed("reranker", other_caller_only), "reranker")


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("prefix", ["model.", ""])
@pytest.mark.parametrize("tied", [True, False])
def test_weights_are_the_same_numbers_in_every_dress(
    shards: int, prefix: str, tied: bool, random_checkpoint: Callable[..., Path]
) -> None:
    plain = load_file(random_checkpoint(tied=tied) / "model.safetensors")
    opened = Checkpoint(random_checkpoint(tied=tied, shards=shards, prefix=prefix))
    assert len(opened.names()) == len(plain)
    for name, values in plain.items():
        canonical = name.removeprefix("model.")
        assert np.array_equal(opened.float32(canonical), values), name
    assert ("lm_head.weight" in opened) is not tied  # a tied head is absent from the file
    head = opened.stored(opened.head_name()).rows(np.array([0, 7]))
    wanted = "model.language_model.embed_tokens.weight" if tied else "lm_head.weight"
    assert np.array_equal(head, plain[wanted][[0, 7]])
