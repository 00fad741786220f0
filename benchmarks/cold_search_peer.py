"""The search of `cold_search.py`, done the usual way: torch and transformers, from a fresh process.

    python benchmarks/cold_search_peer.py WORK "two dogs on a beach at night"

WORK holds `vectors.npy` (float32 [segments, H], unit rows) and `items.json` (for each row its path, kind,
start, and the times of its frames). Embeds the query with the embedder, takes the 20 best items by cosine,
judges all of them in one batch with the reranker, fuses both scores, and prints the order as JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from transformers import Qwen3VLForConditionalGeneration, Qwen3VLProcessor
from transformers.utils import logging
from transformers.video_utils import VideoMetadata

TOP = 20
QUERY_INSTRUCTION = "Retrieve images or text relevant to the user's query."
RERANKING_INSTRUCTION = "Given a search query, retrieve relevant candidates that answer the query."
RERANKING_SYSTEM = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct provided. "
    'Note that the answer can only be "yes" or "no".'
)
PIECE = {"photo": {"type": "image", "image": ""}, "video": {"type": "video", "video": ""}}


def main() -> None:
    work, query = Path(sys.argv[1]), sys.argv[2]
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    setup = json.loads((work / "items.json").read_text(encoding="utf-8"))
    with torch.inference_mode():
        vector = embed(Path(setup["embedder"]), query)
        cosines = np.load(work / "vectors.npy") @ vector
        top = best_items(cosines, setup["segments"])
        logits = judge(Path(setup["reranker"]), query, [setup["segments"][row] for row in top])
    fused = setup["weight"] * cosines[top] + logits
    order = np.argsort(-fused, kind="stable")
    results = [
        {
            "path": setup["segments"][top[i]]["path"],
            "embedding_score": float(cosines[top[i]]),
            "reranker_score": float(1 / (1 + np.exp(-logits[i]))),
        }
        for i in order
    ]
    print(json.dumps({"query": query, "results": results}))


def embed(folder: Path, query: str) -> np.ndarray:
    processor = Qwen3VLProcessor.from_pretrained(folder)
    # Not Qwen3VLModel: with 4.57 that leaves every weight random when tensor names carry "model.".
    model = Qwen3VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval().model
    conversation = [
        {"role": "system", "content": [{"type": "text", "text": QUERY_INSTRUCTION}]},
        {"role": "user", "content": [{"type": "text", "text": query}]},
    ]
    text = processor.apply_chat_template(conversation, add_generation_prompt=True, tokenize=False)
    inputs = processor(text=[text], return_tensors="pt")
    state = model(**inputs, use_cache=False).last_hidden_state[0, -1]
    return torch.nn.functional.normalize(state, dim=-1).numpy()


def best_items(cosines: np.ndarray, segments: list[dict[str, Any]]) -> list[int]:
    """Rows of the best segment of each of the `TOP` best items."""
    rows, seen = [], set()
    for row in np.argsort(-cosines, kind="stable"):
        path = segments[row]["path"]
        if path not in seen:
            seen.add(path)
            rows.append(int(row))
        if len(rows) == TOP:
            break
    return rows


def judge(folder: Path, query: str, segments: list[dict[str, Any]]) -> np.ndarray:
    processor = Qwen3VLProcessor.from_pretrained(folder)
    model = Qwen3VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    texts = [
        processor.apply_chat_template(conversation(query, PIECE[segment["kind"]]), add_generation_prompt=True)
        for segment in segments
    ]
    media: dict[str, Any] = {}
    images = [
        ImageOps.exif_transpose(Image.open(segment["path"])).convert("RGB")
        for segment in segments
        if segment["kind"] == "photo"
    ]
    films = [read_frames(s) for s in segments if s["kind"] == "video"]
    if images:
        media["images"] = images
    if films:
        media |= {"videos": [film[0] for film in films], "video_metadata": [film[1] for film in films]}
        media["do_sample_frames"] = False
    inputs = processor(text=texts, padding=True, padding_side="right", return_tensors="pt", **media)
    inputs.pop("video_metadata", None)
    states = model.model(**inputs, use_cache=False).last_hidden_state
    last = states[torch.arange(len(texts)), inputs["attention_mask"].sum(1) - 1]
    words = processor.tokenizer.get_vocab()
    head = model.lm_head.weight
    return (last @ (head[words["yes"]] - head[words["no"]])).numpy()


def conversation(query: str, piece: dict[str, str]) -> list[dict[str, Any]]:
    return [
        {"role": "system", "content": [{"type": "text", "text": RERANKING_SYSTEM}]},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": f"<Instruct>: {RERANKING_INSTRUCTION}"},
                {"type": "text", "text": "<Query>:"},
                {"type": "text", "text": query},
                {"type": "text", "text": "\n<Document>:"},
                piece,
            ],
        },
    ]


def read_frames(segment: dict[str, Any]) -> tuple[torch.Tensor, VideoMetadata]:
    """The frames of a scene that the library looked at, [F, 3, h, w]; their indices are milliseconds."""
    import av

    wanted = [segment["start_s"] + at for at in segment["times_s"]]
    frames: list[np.ndarray] = []
    with av.open(segment["path"]) as container:
        for frame in container.decode(video=0):
            while len(frames) < len(wanted) and frame.time >= wanted[len(frames)] - 0.02:
                frames.append(frame.to_ndarray(format="rgb24"))
            if len(frames) == len(wanted):
                break
    stack = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)
    metadata = VideoMetadata(
        total_num_frames=len(frames),
        fps=1000.0,
        duration=segment["times_s"][-1],
        frames_indices=[round(1000 * at) for at in segment["times_s"][: len(frames)]],
        height=stack.shape[2],
        width=stack.shape[3],
    )
    return stack, metadata


if __name__ == "__main__":
    main()
