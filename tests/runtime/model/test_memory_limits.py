"""A run that does not fit into memory is made again in halves: same vectors, or an error for one row."""

from __future__ import annotations

import numpy as np
import pytest
from qvl_local.runtime.errors import ModelMemoryError
from qvl_local.runtime.model.encoder import Encoder
from qvl_local.runtime.model.request import parse_requests


class SmallMemorySession:
    """Fake for a device that is too small: a real session that refuses runs of more than `most` rows."""

    def __init__(self, session, key, most):
        self._session = session
        self._key = key
        self._most = most
        self.rows = []

    def run(self, feeds):
        self.rows.append(len(feeds[self._key]))
        if self.rows[-1] > self._most:
            raise ModelMemoryError("too little memory, as arranged")
        return self._session.run(feeds)


@pytest.fixture(scope="module")
def prompts(embedding_host):
    """Eleven prompts: texts, pictures of one size, and a film of eight frames."""
    generator = np.random.default_rng(5)
    pictures = [generator.integers(0, 256, (64, 96, 3)).astype(np.uint8) for _ in range(5)]
    film = generator.integers(0, 256, (8, 64, 96, 3)).astype(np.uint8)
    requests = parse_requests(
        [
            *({"text": f"a dog number {i}"} for i in range(5)),
            *({"image": picture} for picture in pictures),
            {"video": film},
        ],
        name="input",
    )
    processor = embedding_host.processor
    return [processor.embedding_prompt(processor.prepare(request), instruction=None) for request in requests]


@pytest.fixture
def encoder_with(embedding_host):
    """An encoder over sessions that take at most so many images and rows a run."""

    def make(images, rows):
        vision = SmallMemorySession(embedding_host.vision, "patches", images)
        decoder = SmallMemorySession(embedding_host.decoder, "embeds", rows)
        encoder = Encoder(
            embedding_host.config,
            embedding_host.budget,
            embedding_host.encoder._table,
            vision=lambda: vision,
            decoder=lambda: decoder,
        )
        return encoder, vision, decoder

    return make


@pytest.mark.parametrize("most", [1, 2, 3])
def test_halves_give_the_same_vectors(prompts, encoder_with, most):
    whole, vision, decoder = encoder_with(100, 100)
    expected = whole.pool(prompts)
    assert max(vision.rows) > most, "the test needs batches that do not fit"
    assert max(decoder.rows) > most
    encoder, vision, decoder = encoder_with(most, most)
    assert np.abs(encoder.pool(prompts) - expected).max() <= 1e-5 * np.abs(expected).max()
    assert sum(rows for rows in vision.rows if rows <= most) == 9  # five pictures and four pairs of frames
    assert sum(rows for rows in decoder.rows if rows <= most) == len(prompts)


def test_what_did_not_fit_is_not_tried_again(prompts, encoder_with):
    encoder, vision, decoder = encoder_with(2, 2)
    encoder.pool(prompts)
    vision.rows.clear()
    decoder.rows.clear()
    encoder.pool(prompts)
    assert max(vision.rows) <= 2
    assert max(decoder.rows) <= 2


@pytest.mark.parametrize(("images", "rows"), [(0, 9), (9, 0)])
def test_a_single_row_that_does_not_fit_is_an_error(prompts, encoder_with, images, rows):
    encoder, _, _ = encoder_with(images, rows)
    with pytest.raises(ModelMemoryError, match="as arranged"):
        encoder.pool(prompts)
