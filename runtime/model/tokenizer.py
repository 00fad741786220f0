"""Token ids of prompts: the checkpoint's tokenizer, with the ends and the truncation the models expect."""

from __future__ import annotations

import re
from pathlib import Path

from tokenizers import Tokenizer  # type: ignore[import-untyped]

from ..errors import CheckpointError, InputError
from .bundle import Role
from .config import ModelConfig

# Closing tokens of a prompt ("<|im_end|>", newline, "<|im_start|>", "assistant", newline), never truncated.
_TAIL = 5
_END = "<|endoftext|>"


class PromptTokenizer:
    """Turns the text of a prompt, vision placeholders already expanded, into token ids."""

    def __init__(self, folder: Path, config: ModelConfig, *, role: Role, max_tokens: int) -> None:
        self._folder = folder
        self._tokenizer = load_tokenizer(folder)
        self._role = role
        self._max_tokens = max_tokens
        special = {
            token_id: token.content
            for token_id, token in self._tokenizer.get_added_tokens_decoder().items()
            if token.special
        }
        self._special = frozenset(special)
        self._special_text = re.compile("|".join(map(re.escape, special.values()))) if special else None
        self.image_token = self._token(config.image_token_id)
        self.video_token = self._token(config.video_token_id)
        self.vision_start = self._token(config.vision_start_token_id)
        self.vision_end = self._token(config.vision_end_token_id)
        end = self._tokenizer.token_to_id(_END)
        if end is None and role == "embedder":
            raise CheckpointError(
                f"{folder / 'tokenizer.json'}: has no token {_END}, on which the embedder's prompts end. "
                "Download the checkpoint again."
            )
        self._end = end

    def encode(self, text: str) -> list[int]:
        """Token ids of a prompt, at most the model's limit; special and visual tokens always stay.

        The embedder's prompt ends on exactly one `<|endoftext|>`, whatever the tokenizer's post-processor
        does; the reranker's is left as the tokenizer makes it.

        Raises:
            InputError: special and visual tokens alone are over the limit.
        """
        ids: list[int]
        if self._role == "reranker":
            ids = self._tokenizer.encode(text).ids
            return self._truncate(ids, tail=_TAIL, limit=self._max_tokens + _TAIL)
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        if not ids or ids[-1] != self._end:
            ids.append(self._end)
        return self._truncate(ids, tail=_TAIL + 1, limit=self._max_tokens)

    def shortened(self, text: str, *, tokens: int) -> str:
        """The beginning of a text that takes at most so many tokens; whole characters."""
        offsets: list[tuple[int, int]] = self._tokenizer.encode(text, add_special_tokens=False).offsets
        if len(offsets) <= tokens:
            return text
        # A character of several tokens ends behind each of them: what goes beyond the limit goes whole.
        return text[: offsets[tokens][0]]

    def neutral(self, text: str) -> str:
        """A user's text in which nothing reads as a special token: `<|im_end|>` becomes `< |im_end|>`."""
        if self._special_text is None or "<" not in text:
            return text
        return self._special_text.sub(lambda match: match[0][0] + " " + match[0][1:], text)

    def _truncate(self, ids: list[int], *, tail: int, limit: int) -> list[int]:
        """Drop ordinary tokens from the end of the body, as the official reranking code does."""
        if len(ids) <= limit:
            return ids
        body, closing = ids[:-tail], ids[-tail:]
        room = limit - len(closing) - sum(token in self._special for token in body)
        if room < 0:
            raise InputError(
                f"The images and videos of one input take {limit - room} tokens; the limit is {limit}. "
                "Give fewer or smaller ones, or fewer frames."
            )
        kept = []
        for token in body:
            if token in self._special:
                kept.append(token)
            elif room > 0:
                kept.append(token)
                room -= 1
        return kept + closing

    def _token(self, token_id: int) -> str:
        token: str | None = self._tokenizer.id_to_token(token_id)
        if token is None:
            raise CheckpointError(
                f"{self._folder / 'tokenizer.json'}: has no token {token_id}, which config.json names. "
                "The two files belong to different checkpoints; download the checkpoint again."
            )
        if token_id not in self._special:
            raise CheckpointError(
                f"{self._folder / 'tokenizer.json'}: {token} is not a special token, so texts would be split "
                "wrongly. Download the checkpoint again."
            )
        return token


def load_tokenizer(folder: Path) -> Tokenizer:
    """The checkpoint's tokenizer, which neither truncates nor pads.

    Raises:
        CheckpointError: tokenizer.json is missing or cannot be read.
    """
    file = folder / "tokenizer.json"
    if not file.is_file():
        if (folder / "vocab.json").is_file():
            # Rebuilding from the two files loses the added tokens: prompts would be wrong, and nobody told.
            raise CheckpointError(
                f"{folder}: has vocab.json and merges.txt but no tokenizer.json, and those give wrong "
                "special tokens. Save it with transformers: tokenizer.save_pretrained."
            )
        raise CheckpointError(f"{folder}: no tokenizer.json. Download the checkpoint again.")
    try:
        text = file.read_text(encoding="utf-8")
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # the tokenizers library raises plain Exception
        raise CheckpointError(f"{file}: cannot be read ({error}). Download the checkpoint again.") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
