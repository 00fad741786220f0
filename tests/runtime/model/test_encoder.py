"""Host code against transformers: the same vectors, for every kind of input, shape of model and batch."""

import numpy as np
import pytest
from qvl_local.runtime.model.request import parse_request

SHAPES = {
    "vision head dim 72, untied head": {
        "tied": False,
        "vision_hidden_size": 144,
        "vision_num_heads": 2,
        "vision_intermediate_size": 200,
        "vision_depth": 4,
        "vision_deepstack_visual_indexes": [0, 1, 3],
        "hidden_size": 96,
        "num_attention_heads": 6,
        "num_key_value_heads": 3,
        "head_dim": 32,
        "intermediate_size": 128,
        "num_hidden_layers": 5,
        "rope_scaling": {"mrope_interleaved": True, "mrope_section": [6, 5, 5], "rope_type": "default"},
    },
    "one deepstack layer, head dim 128": {
        "vision_depth": 3,
        "vision_deepstack_visual_indexes": [2],
        "vision_num_position_embeddings": 144,
        "hidden_size": 160,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 128,
        "num_hidden_layers": 3,
        "rope_scaling": {"mrope_interleaved": True, "mrope_section": [24, 20, 20], "rope_type": "default"},
        "rope_theta": 5_000_000.0,
    },
}


def cases(picture, clip):
    """Inputs with what the oracle is given for each: texts, images, films."""
    one, two = picture(90, 130, 1), picture(200, 60, 2)
    film, other = clip(8, 96, 96, 3), clip(5, 70, 120, 4)
    return {
        "text": {"texts": ["two dogs on a beach"]},
        "empty": {},
        "unicode": {"texts": ["Ünïcödé 狗 на пляже \U0001f415\n\ttabs"]},
        "image": {"images": [one]},
        "several images": {"images": [one, two, picture(32, 32, 5)], "texts": ["which one?"]},
        "video": {"films": [(film, 2.0)]},
        "odd video": {"films": [(other, 2.0)]},
        "mixed": {"texts": ["a dog", "at night"], "images": [two, one], "films": [(film, 2.0), (other, 2.0)]},
    }


def as_request(case):
    return parse_request(
        {
            "text": case.get("texts"),
            "image": case.get("images"),
            "video": [frames for frames, _ in case.get("films", ())] or None,
        }
    )


def oracle_pooled(oracle, case):
    films = case.get("films", ())
    conversation = oracle.embedding_conversation(
        texts=case.get("texts", ()), images=len(case.get("images", ())), videos=len(films)
    )
    return oracle.pooled(conversation, images=case.get("images", ()), films=films)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def pooled_by_host(host, requests):
    prompts = [host.processor.embedding_prompt(host.processor.prepare(r), instruction=None) for r in requests]
    return host.encoder.pool(prompts)


def assert_same(ours, theirs):
    ours, theirs = unit(ours), unit(theirs)
    assert np.abs(ours - theirs).max() <= 1e-4
    assert (ours * theirs).sum(-1).min() >= 0.99999


def test_every_kind_of_input_matches_transformers(tiny_embedding, embedding_host, picture, clip):
    for name, case in cases(picture, clip).items():
        ours = pooled_by_host(embedding_host, [as_request(case)])[0]
        theirs = oracle_pooled(tiny_embedding, case)
        try:
            assert_same(ours, theirs)
        except AssertionError as error:
            raise AssertionError(name) from error


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_other_shapes_match_transformers(shape, tmp_path, make_checkpoint, oracle_of, host_of, picture, clip):
    oracle = oracle_of(make_checkpoint(tmp_path / "checkpoint", **shape))
    host = host_of(oracle, "embedder")
    for case in cases(picture, clip).values():
        assert_same(pooled_by_host(host, [as_request(case)])[0], oracle_pooled(oracle, case))


def test_a_batch_equals_singles(embedding_host, picture, clip):
    requests = [as_request(case) for case in cases(picture, clip).values()]
    together = pooled_by_host(embedding_host, requests)
    alone = np.concatenate([pooled_by_host(embedding_host, [request]) for request in requests])
    assert np.abs(unit(together) - unit(alone)).max() <= 1e-5


def test_runs_repeat_nothing_and_pad_little(embedding_host, picture):
    processor = embedding_host.processor
    photo = processor.prepare(parse_request({"image": picture(64, 64)}))
    words = [processor.prepare(parse_request({"text": "dog " * count})) for count in (5, 100, 5)]
    prompts = [
        processor.embedding_prompt(one, instruction=None) for one in (words[0], photo, *words[1:], photo)
    ]
    embedding_host.vision.calls.clear()
    embedding_host.decoder.calls.clear()
    embedding_host.encoder.pool(prompts)
    assert [call[0] for call in embedding_host.vision.calls] == [1]  # one picture, in two prompts
    short, seen, long = (len(prompts[number].ids) for number in (0, 1, 2))
    assert abs(short - seen) < 0.2 * seen  # they would fit, but text alone needs no room for features
    rows_and_lengths = [call[:2] for call in embedding_host.decoder.calls]
    assert sorted(rows_and_lengths) == sorted([(2, short), (2, seen), (1, long)])
