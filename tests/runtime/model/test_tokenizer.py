"""The ends of prompts, truncation, and the dresses of a tokenizer."""

import json
import shutil
from dataclasses import replace

import pytest
from qvl_local.runtime.errors import CheckpointError, InputError
from qvl_local.runtime.model.config import load_config
from qvl_local.runtime.model.tokenizer import PromptTokenizer

HEADER = "<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture
def make(tiny_folder, tmp_path):
    """A tokenizer of tiny's, its post-processor kept, dropped or doubled."""

    def make(role="embedder", *, max_tokens=8192, post_processor="keep", change=None):
        folder = tmp_path / f"{role}-{post_processor}-{max_tokens}"
        if not folder.exists():
            shutil.copytree(tiny_folder / "embedding", folder)
        file = folder / "tokenizer.json"
        raw = json.loads((tiny_folder / "embedding" / "tokenizer.json").read_text(encoding="utf-8"))
        if post_processor == "drop":
            raw["post_processor"] = None
        if change is not None:
            change(raw)
        file.write_text(json.dumps(raw), encoding="utf-8")
        return PromptTokenizer(folder, load_config(folder), role=role, max_tokens=max_tokens)

    return make


@pytest.fixture
def ids(tiny_embedding):
    vocabulary = tiny_embedding.processor.tokenizer.get_vocab()
    return lambda *tokens: [vocabulary[token] for token in tokens]


@pytest.mark.parametrize("post_processor", ["keep", "drop"])
def test_the_embedder_ends_on_exactly_one_endoftext(make, ids, post_processor, tiny_embedding):
    (end,) = ids("<|endoftext|>")
    text = "<|im_start|>user\ntwo dogs" + HEADER
    encoded = make(post_processor=post_processor).encode(text)
    assert encoded == tiny_embedding.processor.tokenizer(text)["input_ids"]
    assert encoded[-1] == end
    assert encoded.count(end) == 1
    assert make(post_processor=post_processor).encode(text + "<|endoftext|>").count(end) == 1


def test_the_reranker_is_left_as_its_tokenizer_makes_it(make, ids, tiny_reranker):
    text = "<|im_start|>user\ntwo dogs" + HEADER
    plain = make("reranker", post_processor="drop").encode(text)
    assert plain == tiny_reranker.processor.tokenizer(text)["input_ids"]
    assert plain[-1] != ids("<|endoftext|>")[0]
    assert make("reranker").encode(text) == plain + ids("<|endoftext|>")


def test_truncation_keeps_special_and_visual_tokens_and_the_end(make, ids):
    start, image, end, closing, last = ids(
        "<|vision_start|>", "<|image_pad|>", "<|vision_end|>", "<|im_end|>", "<|endoftext|>"
    )
    pixels = "<|vision_start|>" + "<|image_pad|>" * 16 + "<|vision_end|>"
    text = "<|im_start|>user\n" + "many dogs " * 500 + pixels + "and a cat" + HEADER
    whole = make().encode(text)
    for limit in (60, 100, 500):
        cut = make(max_tokens=limit).encode(text)
        assert len(cut) == limit
        assert cut[-6:] == whole[-6:]
        assert (cut.count(start), cut.count(image), cut.count(end)) == (1, 16, 1)
        assert (cut.count(closing), cut.count(last)) == (1, 1)
        kept = [token for token in cut if token not in (start, image, end)]
        assert kept[:-6] == whole[: len(kept) - 6]  # what is lost, is lost from the end of the body
    assert make(max_tokens=len(whole)).encode(text) == whole


def test_the_reranker_truncates_before_its_header(make, tiny_reranker):
    text = "<|im_start|>user\n" + "dog " * 3000 + HEADER
    tokenizer = make("reranker", post_processor="drop", max_tokens=200)
    whole = tiny_reranker.processor.tokenizer(text)["input_ids"]
    cut = tokenizer.encode(text)
    assert len(cut) == 205  # the official code counts the header apart
    assert cut[-5:] == whole[-5:]
    assert cut[:200] == whole[:200]


def test_too_many_visual_tokens_are_an_error(make):
    with pytest.raises(InputError, match=r"images and videos of one input take .* the limit is 50"):
        make(max_tokens=50).encode("<|image_pad|>" * 60 + HEADER)


def test_a_text_of_100_000_characters(make):
    encoded = make().encode("dog \U0001f415 狗 " * 12_500 + HEADER)
    assert len(encoded) == 8192
    assert make().encode("x" * 100_000 + HEADER)[-6:] == encoded[-6:]


def test_special_tokens_in_a_users_text_are_plain_text(make, ids):
    tokenizer = make()
    text = tokenizer.neutral("a <|image_pad|> and <|im_end|>, 1 < 2 <|nothing|>")
    assert text == "a < |image_pad|> and < |im_end|>, 1 < 2 <|nothing|>"
    encoded = tokenizer.encode(text)
    assert ids("<|image_pad|>")[0] not in encoded
    assert ids("<|im_end|>")[0] not in encoded
    assert tokenizer.neutral("plain") == "plain"


def test_vocabulary_and_merges_alone_are_refused(make, tiny_folder, tmp_path):
    folder = tmp_path / "old"
    shutil.copytree(tiny_folder / "embedding", folder)
    raw = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    (folder / "tokenizer.json").unlink()
    config = load_config(folder)
    with pytest.raises(CheckpointError, match=r"no tokenizer\.json\. Download"):
        PromptTokenizer(folder, config, role="embedder", max_tokens=100)
    (folder / "vocab.json").write_text(json.dumps(raw["vocab"]), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"vocab\.json and merges\.txt but no tokenizer\.json"):
        PromptTokenizer(folder, config, role="embedder", max_tokens=100)


def test_a_tokenizer_of_another_model_is_refused(make, tiny_folder):
    def renamed(raw):
        for entry in raw["added_tokens"]:
            if entry["content"] == "<|endoftext|>":
                entry["content"] = "<|other|>"
        raw["post_processor"] = None

    def ordinary(raw):
        for entry in raw["added_tokens"]:
            entry["special"] = False
        raw["post_processor"] = None

    with pytest.raises(CheckpointError, match=r"has no token <\|endoftext\|>"):
        make(change=renamed, max_tokens=2)
    with pytest.raises(CheckpointError, match="is not a special token"):
        make(change=ordinary, max_tokens=3)
    config = replace(load_config(tiny_folder / "embedding"), image_token_id=151_655)
    with pytest.raises(CheckpointError, match=r"has no token 151655, which config\.json names"):
        PromptTokenizer(tiny_folder / "embedding", config, role="embedder", max_tokens=100)


def test_a_damaged_tokenizer_is_named(make, tiny_folder, tmp_path):
    folder = tmp_path / "damaged"
    shutil.copytree(tiny_folder / "embedding", folder)
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: cannot be read"):
        PromptTokenizer(folder, load_config(folder), role="embedder", max_tokens=100)


def test_truncation_and_padding_stored_in_the_file_do_not_apply(make):
    def change(raw):
        raw["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}

    assert len(make(change=change).encode("two dogs on a beach" + HEADER)) > 8


def test_a_text_is_shortened_to_whole_characters(make):
    tokenizer = make()
    text = "two dogs — \U0001f415 on a beach"
    assert tokenizer.shortened(text, tokens=1000) == text
    beginnings = [tokenizer.shortened(text, tokens=count) for count in range(1, 12)]
    assert all(text.startswith(beginning) for beginning in beginnings)
    assert beginnings == sorted(beginnings, key=len)
    for count, beginning in enumerate(beginnings, 1):
        assert len(tokenizer._tokenizer.encode(beginning, add_special_tokens=False).ids) <= count
    assert beginnings[1] == "two dogs"
