"""What a fidelity report says in words of its intervals."""

import pytest
from qvl_local.desktop.accuracy_tables import is_doubtful, verdict
from qvl_local.quant.accuracy.bootstrap import Estimate


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (Estimate(0.0, 0.0, 0.0), "nf4 ranks as well as fp32"),
        (
            Estimate(-0.03, -0.05, -0.01),
            "nf4 ranks worse than fp32: nDCG@10 with reranking changes by -0.0300",
        ),
        (Estimate(0.03, 0.01, 0.05), "nf4 ranks better than fp32"),
        (Estimate(0.03, -0.01, 0.07), "no difference between nf4 and fp32 can be told"),
        (Estimate(-0.03, -0.06, 0.0), "which may be chance"),
    ],
)
def test_the_verdict_goes_by_the_interval(change: Estimate, says: str) -> None:
    assert says in verdict("nf4", "fp32", change, rerank=True)


@pytest.mark.parametrize(
    ("change", "questions", "doubtful"),
    [
        (Estimate(0.05, -0.1, 0.2), 136, True),  # wide
        (Estimate(0.05, -0.1, 0.2), 8, True),
        (Estimate(0.0, 0.0, 0.0), 8, True),  # two equal answers are no proof
        (Estimate(0.001, -0.004, 0.006), 136, False),  # no difference worth looking for
        (Estimate(-0.3, -0.5, -0.1), 136, False),  # wide, and clear
    ],
)
def test_few_questions_are_named(change: Estimate, questions: int, doubtful: bool) -> None:
    assert is_doubtful([Estimate(-0.2, -0.21, -0.19), change], questions) is doubtful
