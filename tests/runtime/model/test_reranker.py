"""The reranker end to end, on exported bundles: transformers' scores, batches, fusion, errors."""

import json
import shutil

import numpy as np
import pytest
from qvl_local.runtime import Reranker
from qvl_local.runtime.errors import InputError
from qvl_local.runtime.model.processor import MAX_TOKENS
from qvl_local.runtime.model.video import VideoFrames


@pytest.fixture(scope="module")
def reranker():
    return Reranker.open("tiny", threads=1)


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


@pytest.fixture
def pairs(picture, clip):
    """(query, document, what the oracle is given: query, document, images, films)."""
    photo, other, film = picture(480, 640, 1), picture(90, 130, 2), clip(8, 96, 96, 3)
    frames = VideoFrames(film, np.arange(8) / 2)
    words = {"text": "two dogs"}
    return [
        (words, {"text": "a red dog"}, ((["two dogs"], 0, 0), (["a red dog"], 0, 0)), [], []),
        (words, {}, ((["two dogs"], 0, 0), ([], 0, 0)), [], []),
        (words, {"image": photo}, ((["two dogs"], 0, 0), ([], 1, 0)), [photo], []),
        (words, {"image": [other, photo]}, ((["two dogs"], 0, 0), ([], 2, 0)), [other, photo], []),
        (words, {"video": frames}, ((["two dogs"], 0, 0), ([], 0, 1)), [], [(film, 2.0)]),
        (
            {"image": other, "text": "like this"},
            {"image": photo, "video": frames, "text": "caption"},
            ((["like this"], 1, 0), (["caption"], 1, 1)),
            [other, photo],
            [(film, 2.0)],
        ),
    ]


def by_oracle(oracle, pair, instruction=None):
    _, _, (query, document), images, films = pair
    return oracle.logit(
        oracle.reranking_conversation(query, document, instruction), images=images, films=films
    )


def test_scores_are_those_of_transformers(reranker, pairs, tiny_reranker):
    for pair in pairs:
        logit = by_oracle(tiny_reranker, pair)
        (ours,) = reranker.score(pair[0], [pair[1]])
        assert abs(float(ours) - sigmoid(logit)) <= 1e-4
        assert abs(float(reranker.logits(pair[0], [pair[1]])[0]) - logit) <= 1e-3


def test_what_was_loaded_ahead_needs_no_files(reranker, pairs, tmp_path):
    query, photo = pairs[2][:2]
    shutil.copytree(reranker.bundle.path, tmp_path / "bundle")
    ready = Reranker.open(tmp_path / "bundle", threads=1)
    ready.load()
    for graph in (tmp_path / "bundle" / "onnx").glob("*.onnx"):
        graph.unlink()
    assert np.array_equal(ready.score(query, [photo]), reranker.score(query, [photo]))


def test_a_batch_of_documents_equals_each_alone(reranker, pairs, tiny_reranker):
    documents = [pair[1] for pair in pairs[:5]]
    together = reranker.score({"text": "two dogs"}, documents)
    assert together.dtype == np.float32
    assert ((together >= 0) & (together <= 1)).all()
    alone = np.concatenate([reranker.score({"text": "two dogs"}, [document]) for document in documents])
    assert np.abs(together - alone).max() <= 1e-5
    theirs = sigmoid([by_oracle(tiny_reranker, pair) for pair in pairs[:5]])
    assert np.abs(together - theirs).max() <= 1e-4


def test_the_instruction_counts_wherever_it_is_given(reranker, pairs, tiny_reranker):
    wanted = sigmoid(by_oracle(tiny_reranker, pairs[2], "Find photos of animals"))
    document = pairs[2][1]
    for score in (
        reranker.score({"text": "two dogs"}, [document], instruction="Find photos of animals"),
        reranker.score({"text": "two dogs", "instruction": "Find photos of animals"}, [document]),
    ):
        assert abs(float(score[0]) - wanted) <= 1e-4
    with pytest.raises(InputError, match="document 0: takes no instruction"):
        reranker.score({"text": "a"}, [{"text": "b", "instruction": "c"}])


def test_an_untied_head_of_another_shape(pairs, tmp_path, make_checkpoint, oracle_of):
    folder = make_checkpoint(
        tmp_path / "Some-Reranker",
        tied=False,
        hidden_size=96,
        intermediate_size=160,
        num_attention_heads=4,
        num_key_value_heads=1,
        num_hidden_layers=3,
        vision_depth=3,
        vision_deepstack_visual_indexes=[0, 2],
        seed=3,
    )
    oracle = oracle_of(folder)
    reranker = Reranker.open(folder, threads=1)
    assert reranker.fusion == {}
    # The embedder's tokenizer stands in this folder and adds its end: then the reference pools there, too.
    for pair in pairs:
        logit = by_oracle(oracle, pair)
        assert abs(float(reranker.score(pair[0], [pair[1]])[0]) - sigmoid(logit)) <= 1e-4


def test_no_documents_no_scores(reranker):
    assert reranker.score({"text": "a"}, []).shape == (0,)


def test_documents_must_be_a_list(reranker):
    with pytest.raises(InputError, match="Give a list of documents"):
        reranker.score({"text": "a"}, {"text": "b"})
    with pytest.raises(InputError, match="the query: unknown key"):
        reranker.score({"txt": "a"}, [{"text": "b"}])


def test_a_long_query_leaves_room_for_the_document(picture, monkeypatch):
    monkeypatch.setitem(MAX_TOKENS, "reranker", 300)
    reranker = Reranker.open("tiny", threads=1)
    one, other = picture(64, 64, 1), picture(64, 64, 2)
    first, second = reranker.logits({"text": "two dogs " * 11_111}, [{"image": one}, {"image": other}])
    assert first != second


def test_fusion_is_what_the_checkpoint_measured(tmp_path, tiny_folder):
    for name in ("embedding", "reranker"):
        shutil.copytree(tiny_folder / name, tmp_path / name)
    file = tmp_path / "reranker" / "qvl_fusion.json"
    file.write_text(json.dumps({"formula": "logit + weight * cosine", "weight": 12.5}), encoding="utf-8")
    assert Reranker.open(tmp_path).fusion == {"cosine_weight": 12.5}


def test_says_how_many_tokens_each_document_took(reranker):
    documents = [{"text": "a dog"}, {"text": "a dog, and another one far behind it"}]
    judged = reranker.judge({"text": "two dogs"}, documents)
    alone = [reranker.judge({"text": "two dogs"}, [document]).tokens for document in documents]
    assert [(count,) for count in judged.tokens] == alone
    assert judged.tokens[0] < judged.tokens[1]
    assert np.array_equal(judged.scores, reranker.score({"text": "two dogs"}, documents))
