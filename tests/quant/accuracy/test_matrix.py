"""From vectors and judgements to rows, gate, card and plot; on vectors made here, judged by a known rule."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from numpy.typing import NDArray
from qvl_local.quant.accuracy.card import BEGIN, END, card_section, manifest_object, with_section
from qvl_local.quant.accuracy.correlation import spearman
from qvl_local.quant.accuracy.dataset import Dataset, Question
from qvl_local.quant.accuracy.gate import check_drop
from qvl_local.quant.accuracy.matrix import Matrix, agreement
from qvl_local.quant.accuracy.measured import RERANKED, Cost, GalleryRun, Measured, default_dims
from qvl_local.quant.accuracy.plot import plot
from qvl_local.quant.accuracy.report import BundleReport, GalleryFacts, Report, Row, Subject, report_object
from qvl_local.quant.accuracy.subject import describe
from qvl_local.runtime.errors import InputError
from qvl_local.runtime.library.fusion import fuse
from qvl_local.runtime.library.records import Candidate
from qvl_local.runtime.model.bundle import Bundle, FileRecord, Layout, Manifest, Part, Source, Table

WIDTH, DOCUMENTS, QUESTIONS = 128, 60, 12
WEIGHT = 15.0
COST = Cost(20.0, 5.0, 15.0, 300_000_000)


def unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@dataclass
class Scene:
    """One gallery in which question i looks for document i, and a run with noise of a given size on it."""

    seed: int = 1

    def __post_init__(self) -> None:
        generator = np.random.default_rng(self.seed)
        self.documents = unit(generator.standard_normal((DOCUMENTS, WIDTH), dtype=np.float32))
        noise = 4.0 * unit(generator.standard_normal((QUESTIONS, WIDTH), dtype=np.float32))
        self.queries = unit(self.documents[:QUESTIONS] + noise)

    def dataset(self, **changes: object) -> Dataset:
        questions = tuple(Question(f"q{i}", {"text": f"number {i}"}, {i: 1.0}) for i in range(QUESTIONS))
        documents = tuple({"image": f"/pictures/{i}.jpg"} for i in range(DOCUMENTS))
        return replace(
            Dataset(f"gallery{self.seed}", "here", "exact", documents, questions),
            **changes,  # type: ignore[arg-type]
        )

    def run(self, noise: float = 0.0, *, unreadable: dict[int, str] | None = None) -> GalleryRun:
        generator = np.random.default_rng(99)
        documents, queries = (
            unit(rows + noise * unit(generator.standard_normal(rows.shape, dtype=np.float32)))
            for rows in (self.documents, self.queries)
        )
        for index in unreadable or {}:
            documents[index] = 0
        pairs = np.argwhere(np.ones((QUESTIONS, DOCUMENTS), bool))
        right = pairs[:, 0] == pairs[:, 1]
        logits = np.where(right, 4.0, -4.0) + noise * generator.standard_normal(len(pairs))
        return GalleryRun(documents, queries, pairs, logits.astype(np.float32), unreadable or {})


def measured(*runs: GalleryRun) -> Measured:
    return Measured(runs, WEIGHT, COST)


def headline(matrix: Matrix, run: Measured, rerank: bool = False, dims: int = WIDTH) -> Row:
    rows = matrix.rows(run, dims=[dims], vectors=["float32"], rerank=True)
    return rows[rerank]


def test_the_matrix_is_complete_and_the_reference_stands_still() -> None:
    scene = Scene()
    base = measured(scene.run())
    matrix = Matrix([scene.dataset()], base, dims=WIDTH, rerank=True)
    rows = matrix.rows(base, dims=[128, 64], vectors=["float32", "int8", "binary"], rerank=True)
    assert len({(row.dims, row.vectors, row.rerank) for row in rows}) == len(rows) == 12
    for row in rows[:2]:
        assert all(figure.change.value == 0 for figure in row.figures.values())
        assert row.overlap == 1
    assert (rows[0].spearman, rows[0].kendall) == (pytest.approx(1), pytest.approx(1))
    assert (rows[1].spearman, rows[1].kendall) == (None, None)
    # Judgements that know the answer cannot but help.
    assert rows[1].figures["ndcg@10"].mean.value > rows[0].figures["ndcg@10"].mean.value
    assert rows[-2].figures["ndcg@10"].change.value < 0


def test_noise_costs_and_the_interval_says_so() -> None:
    scene = Scene()
    base, noisy = measured(scene.run()), measured(scene.run(1.0))
    matrix = Matrix([scene.dataset()], base, dims=WIDTH, rerank=True)
    row = headline(matrix, noisy)
    change = row.figures["ndcg@10"].change
    assert change.value < -0.1
    assert change.high < 0
    assert row.overlap < 0.9
    assert row.kendall is not None
    assert row.spearman is not None
    assert row.kendall < row.spearman < 0.95
    found = agreement(noisy, base, matrix.candidates())
    assert found is not None
    assert found.cosine_min < found.cosine_mean < 0.9
    assert found.pairs == QUESTIONS * RERANKED
    assert found.yes_change_max is not None
    assert found.yes_change_max > 0.01


def test_reranking_orders_as_a_search_does() -> None:
    scene = Scene()
    run = scene.run(0.5)
    matrix = Matrix([scene.dataset()], measured(run), dims=WIDTH, rerank=True)
    logits = run.logits.reshape(QUESTIONS, DOCUMENTS)
    cosines = run.queries @ run.documents.T
    for question in range(QUESTIONS):
        order = np.argsort(-cosines[question], kind="stable")
        candidates = [Candidate(None, index, float(cosines[question, index])) for index in order]  # type: ignore[arg-type]
        ranked = fuse(candidates, logits[question, order[:RERANKED]].tolist(), weight=WEIGHT)
        expected = [one.candidate.segment for one in ranked[:10]]
        assert matrix._reference[True][0].order[question].tolist() == expected


def test_the_question_itself_and_broken_files_are_never_found() -> None:
    scene = Scene()
    dataset = scene.dataset()
    own = tuple(replace(question, exclude=i) for i, question in enumerate(dataset.questions))
    broken = {40: "not a picture"}
    run = scene.run(unreadable=broken)
    matrix = Matrix([replace(dataset, questions=own)], measured(run), dims=WIDTH, rerank=True)
    for rerank in (False, True):
        order = matrix._reference[rerank][0].order
        assert not (order == np.arange(QUESTIONS)[:, None]).any()
        assert not (order == 40).any()
    assert not any((pairs[:, 1] == 40).any() for pairs in matrix.candidates())
    assert headline(matrix, measured(run)).figures["recall@10"].mean.value == 0


def test_files_that_cannot_be_read_count_in_no_figure_of_agreement() -> None:
    scene = Scene()
    broken = dict.fromkeys(range(20, DOCUMENTS), "not a picture")
    base, noisy = scene.run(unreadable=broken), scene.run(1.0, unreadable=broken)
    matrix = Matrix([scene.dataset()], measured(base), dims=WIDTH, rerank=True)
    cosines = [(run.queries @ run.documents[:20].T).astype(np.float64) for run in (noisy, base)]
    row = headline(matrix, measured(noisy))
    assert row.spearman == pytest.approx(spearman(*cosines).mean(), abs=1e-6)
    found = agreement(measured(noisy), measured(base), matrix.candidates())
    assert found is not None
    assert found.cosine_min > 0.5  # those of the others would be 0


def test_without_answers_the_reference_is_right() -> None:
    scene = Scene()
    dataset = scene.dataset().by_reference()
    base, noisy = measured(scene.run()), measured(scene.run(0.6))
    matrix = Matrix([dataset], base, dims=WIDTH, rerank=True)
    for rerank in (False, True):
        assert headline(matrix, base, rerank).figures["ndcg@10"].mean.value == 1
        assert 0.3 < headline(matrix, noisy, rerank).figures["ndcg@10"].mean.value < 1


def test_galleries_count_by_their_questions() -> None:
    scenes = [Scene(1), Scene(2)]
    base = measured(*(scene.run() for scene in scenes))
    other = measured(scenes[0].run(), scenes[1].run(1.0))
    matrix = Matrix([scene.dataset() for scene in scenes], base, dims=WIDTH, rerank=True)
    row = headline(matrix, other)
    parts = [row.galleries[f"gallery{number}"]["ndcg@10"] for number in (1, 2)]
    assert row.figures["ndcg@10"].mean.value == pytest.approx(np.mean(parts))
    assert parts[0] > parts[1]


def test_models_of_other_widths_share_no_cosine() -> None:
    scene = Scene()
    run = scene.run()
    cut = replace(run, documents=unit(run.documents[:, :64]), queries=unit(run.queries[:, :64]))
    matrix = Matrix([scene.dataset()], measured(run), dims=WIDTH, rerank=True)
    assert agreement(measured(cut), measured(run), matrix.candidates()) is None
    assert headline(matrix, measured(cut), dims=64).figures["ndcg@10"].mean.value > 0


def test_default_dims() -> None:
    assert default_dims(2048) == (2048, 1024, 512, 256, 128, 64)
    assert default_dims(96) == (96,)
    assert default_dims(64) == (64,)
    assert default_dims(136) == (136,)  # half of it is no multiple of 8


@pytest.fixture(scope="module")
def report() -> Report:
    scene = Scene()
    base, noisy = measured(scene.run()), measured(scene.run(0.8))
    matrix = Matrix([scene.dataset()], base, dims=WIDTH, rerank=True)
    bundles = []
    for number, (name, found) in enumerate([("fp32", base), ("nf4 & <co>", noisy)]):
        subject = Subject(
            name, f"/bundles/{number}", {"embedder": "tiny"}, {"embedder": name}, {"embedder": name}, WIDTH,
            36_000_000 // (1 + 4 * number),
        )  # fmt: skip
        rows = matrix.rows(found, dims=[128, 64], vectors=["float32", "int8", "binary"], rerank=True)
        close = agreement(found, base, matrix.candidates()) if number else None
        bundles.append(BundleReport(subject, COST, close, rows))
    facts = GalleryFacts("gallery1", "here", "exact", DOCUMENTS, QUESTIONS, scene.dataset().digest(), {})
    return Report(
        (facts,), tuple(bundles), check_drop(bundles, max_drop=0.02), "qvl-local test", "a box", 1.0
    )


def test_the_gate_says_which_figure_fell_by_how_much(report: Report) -> None:
    assert report.gate is not None
    assert not report.ok
    assert [(check.label, check.rerank) for check in report.gate.checks] == [
        ("nf4 & <co>", False),
        ("nf4 & <co>", True),
    ]
    failed = report.gate.checks[0]
    row = report.bundles[1].headline(rerank=False)
    assert row is not None
    assert failed.drop == pytest.approx(-row.figures["ndcg@10"].change.value)
    assert failed.low < failed.drop < failed.high
    assert f"fell by {failed.drop:.4f}" in failed.text
    assert "which excludes zero" in failed.text
    assert check_drop(report.bundles, max_drop=1.0).ok
    # Models of other widths share no cosine, but are held to the same.
    stranger = replace(report.bundles[1], agreement=None)
    assert not check_drop([report.bundles[0], stranger], max_drop=0.02).ok
    (alone, _) = check_drop(report.bundles[:1], max_drop=0).checks
    assert (alone.drop, alone.ok) == (0, True)
    with pytest.raises(InputError, match="max-drop"):
        check_drop(report.bundles, max_drop=1.5)


def test_what_got_better_passes_the_gate() -> None:
    scene = Scene()
    noisy, better = measured(scene.run(0.8)), measured(scene.run())
    matrix = Matrix([scene.dataset()], noisy, dims=WIDTH, rerank=True)
    bundles = [
        BundleReport(
            Subject(name, "/bundles", {}, {}, {}, WIDTH, 1),
            COST,
            None,
            matrix.rows(run, dims=[WIDTH], vectors=["float32"], rerank=False),
        )
        for name, run in (("noisy", noisy), ("better", better))
    ]
    gate = check_drop(bundles, max_drop=0)
    assert gate.ok
    assert gate.checks[0].drop < -0.1
    assert "better without reranking: nDCG@10 rose by" in gate.checks[0].text


def test_a_report_is_plain_json(report: Report) -> None:
    text = json.dumps(report_object(report), allow_nan=False)
    assert json.loads(text)["bundles"][1]["rows"][0]["figures"]["ndcg@10"]["change"] < 0
    assert json.loads(json.dumps(manifest_object(report, report.bundles[1]), allow_nan=False))["rows"]


def test_the_card_holds_every_row_and_is_replaced_not_repeated(report: Report) -> None:
    section = card_section(report, report.bundles[1])
    assert section.count("\n| 128 ") == section.count("\n| 64 ") == 6
    assert "P(yes)" in section
    assert "On a box: " in section
    card = with_section("---\nlicense: mit\n---\n\n# A model\n", section)
    assert card.startswith("---\nlicense: mit\n---\n\n# A model\n")
    assert with_section(card, section) == card
    changed = with_section(card + "\nMy own words.\n", "## Accuracy\n\nnew")
    assert changed.count(BEGIN) == changed.count(END) == 1
    assert "My own words." in changed
    assert "P(yes)" not in changed


def test_the_plot_is_well_formed_and_inside_its_frame(report: Report, tmp_path: Path) -> None:
    text = plot(report)
    root = ElementTree.fromstring(text)
    width, height = (float(part) for part in root.attrib["viewBox"].split()[2:])
    assert "nf4 & <co>" in "".join(root.itertext())
    for element in root.iter():
        for name in ("x", "x1", "x2", "cx"):
            assert 0 <= float(element.attrib.get(name, 0)) <= width
        for name in ("y", "y1", "y2", "cy"):
            assert 0 <= float(element.attrib.get(name, 0)) <= height
    circles = [element for element in root.iter() if element.tag.endswith("circle")]
    # Four headline rows, four float32 vectors, four in the legend.
    assert len(circles) == 4 + 4 + 4


def test_bundles_are_named_by_what_tells_them_apart(tmp_path: Path) -> None:
    def bundle(
        folder: str,
        *,
        vision: str = "nf4",
        decoder: str = "nf4",
        layout: Layout = "separate",
        dims: int = 256,
    ) -> Bundle:
        table = Table("t.bin", "float16", 10, 256)
        part = Part(Source("tiny", None, ""), ".", "v.onnx", "d.onnx", table, vision, decoder, dims)
        manifest = Manifest("ort", "test", {"embedder": part}, {"t.bin": FileRecord(7, "")}, layout=layout)
        return Bundle(tmp_path / folder, manifest)

    def labels(*bundles: Bundle) -> list[str]:
        return [subject.label for subject in describe(bundles)]

    plain, coloured, shared = bundle("a"), bundle("b", vision="fp16"), bundle("c", layout="shared")
    assert labels(coloured) == labels(shared) == ["nf4"]
    assert labels(plain, coloured) == ["nf4", "nf4 with fp16 vision"]
    assert labels(plain, shared, coloured) == ["nf4", "nf4 shared", "nf4 with fp16 vision"]
    assert labels(plain, bundle("d")) == ["nf4 (a)", "nf4 (d)"]
    assert labels(plain, bundle("x/a")) == ["nf4 (a) 1", "nf4 (a) 2"]
    assert labels(plain, bundle("e", dims=64)) == ["nf4", "nf4 at 64"]
    assert labels(plain, bundle("f", decoder="int8-fine")) == ["nf4", "int8-safe"]
