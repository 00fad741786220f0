"""When a search says that nothing matches: one rule for the page, the terminal and whoever asks over HTTP.

docs/decisions/0009-when-nothing-matches.md has the figures behind it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .records import SearchResult

NO_MATCH_BELOW = 0.5
"""P(yes) of the best hit below which nothing matches: the reranker itself says no to everything."""


def is_no_match(result: SearchResult) -> bool:
    """Whether the reranker finds that nothing it has looked at is an answer to the words.

    False when it has looked at nothing, and for a picture without words: it judges words against pictures,
    and the bound was measured so; what it says of two pictures means less than the order.
    """
    if result.query is None:
        return False
    judged = [hit.reranker_score for hit in result.hits if hit.reranker_score is not None]
    return bool(judged) and max(judged) < NO_MATCH_BELOW
