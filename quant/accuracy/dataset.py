"""What an accuracy report searches: documents, questions about them, and which documents answer which."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

# Where the answers come from: the sample world knows them exactly, a user's queries.jsonl says them, or
# nobody does and the first ten of the reference count.
Labels = Literal["exact", "given", "reference"]


@dataclass(frozen=True, slots=True)
class Question:
    """One query. `input` is what `Embedder.embed` takes, with paths as text.

    `relevant` maps a document's index to its grade above 0. `exclude` is the document that is the query
    itself and must not count as found.
    """

    id: str
    input: Mapping[str, str]
    relevant: Mapping[int, float]
    exclude: int | None = None


@dataclass(frozen=True, slots=True)
class Dataset:
    """A gallery. `documents` are `{"image": path}` or `{"video": path}`; `source` says where it is from."""

    name: str
    source: str
    labels: Labels
    documents: tuple[Mapping[str, str], ...]
    questions: tuple[Question, ...]

    def grades(self) -> NDArray[np.float64]:
        """float64 [Q, N]: 0 where a document does not answer a question."""
        grades = np.zeros((len(self.questions), len(self.documents)))
        for row, question in enumerate(self.questions):
            for column, grade in question.relevant.items():
                grades[row, column] = grade
        return grades

    def hidden(self) -> NDArray[np.bool_]:
        """bool [Q, N]: documents that a question must not find, since they are the question."""
        hidden = np.zeros((len(self.questions), len(self.documents)), bool)
        for row, question in enumerate(self.questions):
            if question.exclude is not None:
                hidden[row, question.exclude] = True
        return hidden

    def digest(self) -> str:
        """Short hash of names, texts and answers (not of the pictures): equal for equal questions."""
        text = json.dumps(
            [
                self.labels,
                [
                    [kind, path.replace("\\", "/").rsplit("/", 1)[-1]]
                    for d in self.documents
                    for kind, path in d.items()
                ],
                [[q.id, sorted(q.relevant.items()), q.exclude] for q in self.questions],
            ]
        )
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]

    def by_reference(self) -> Dataset:
        """The same documents and questions without their answers: the reference's first ten will count."""
        questions = tuple(Question(q.id, q.input, {}, q.exclude) for q in self.questions)
        return Dataset(self.name, self.source, "reference", self.documents, questions)


def document_path(document: Mapping[str, Any]) -> str:
    """The file of a document."""
    (path,) = document.values()
    return str(path)
