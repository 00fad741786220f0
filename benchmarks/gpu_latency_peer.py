"""The plain loop of the models' reference code, in bfloat16: one input, one forward pass, nothing kept.

The side that `gpu_latency.py` compares with: transformers' processor and model, with torch's own attention.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import Qwen3VLForConditionalGeneration, Qwen3VLProcessor
from transformers.utils import logging

EMBEDDING_SYSTEM = "Represent the user's input."
RERANKING_INSTRUCTION = "Given a search query, retrieve relevant candidates that answer the query."
RERANKING_SYSTEM = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct provided. "
    'Note that the answer can only be "yes" or "no".'
)


class Reference:
    """One checkpoint, embedder or reranker, loaded whole."""

    def __init__(self, folder: Path, device: str) -> None:
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        self._processor = Qwen3VLProcessor.from_pretrained(folder)
        # Not Qwen3VLModel: with 4.57 that leaves every weight random when tensor names carry "model.".
        self._model = Qwen3VLForConditionalGeneration.from_pretrained(
            folder, dtype=torch.bfloat16, device_map={"": device}, attn_implementation="sdpa"
        ).eval()
        self._device = device
        words = self._processor.tokenizer.get_vocab()
        self._yes, self._no = words["yes"], words["no"]

    def embed(
        self, *, text: str | None = None, image: NDArray[np.uint8] | None = None
    ) -> NDArray[np.float32]:
        """A vector of unit length, float32 [H]."""
        content = [{"type": "image", "image": ""}] if image is not None else []
        content += [{"type": "text", "text": text}] if text is not None else []
        state = self._state(
            [
                {"role": "system", "content": [{"type": "text", "text": EMBEDDING_SYSTEM}]},
                {"role": "user", "content": content},
            ],
            image,
        )
        return torch.nn.functional.normalize(state.float(), dim=-1).cpu().numpy()

    def score(self, query: str, images: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Probabilities, float32 [n], one document after the other."""
        return np.array([self._score(query, image) for image in images], np.float32)

    def _score(self, query: str, image: NDArray[np.uint8]) -> float:
        asked = [
            {"type": "text", "text": f"<Instruct>: {RERANKING_INSTRUCTION}"},
            {"type": "text", "text": "<Query>:"},
            {"type": "text", "text": query},
            {"type": "text", "text": "\n<Document>:"},
            {"type": "image", "image": ""},
        ]
        state = self._state(
            [
                {"role": "system", "content": [{"type": "text", "text": RERANKING_SYSTEM}]},
                {"role": "user", "content": asked},
            ],
            image,
        )
        head = self._model.lm_head.weight.detach()
        return float(torch.sigmoid(state.float() @ (head[self._yes].float() - head[self._no].float())))

    @torch.inference_mode()
    def _state(self, conversation: list[dict[str, Any]], image: NDArray[np.uint8] | None) -> torch.Tensor:
        """The last token's state after the final norm."""
        text = self._processor.apply_chat_template(conversation, add_generation_prompt=True, tokenize=False)
        media = {} if image is None else {"images": [Image.fromarray(image)]}
        inputs = self._processor(text=[text], return_tensors="pt", **media).to(self._device)
        self._model.model.rope_deltas = None
        state: torch.Tensor = self._model.model(**inputs, use_cache=False).last_hidden_state[0, -1]
        return state
