"""The trial of ch-small-samples: tasks, draws, methods, tuning, an interval.

A task is a dict: labels ``y`` (N,), rows ``pool`` to learn from, ``tests`` with the
rows of each test set, and texts or feature arrays of N rows. A method is a function
``(task, train, where, seed, configs) -> answers (len(configs), len(where))``, where
``train`` and ``where`` are row numbers. Networks are in `llmbook.small_networks`.
"""

import functools
import hashlib
import re
from collections.abc import Callable, Sequence
from time import process_time
from typing import Any

import numpy as np
from scipy import stats
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.naive_bayes import GaussianNB, MultinomialNB
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.svm import SVC, LinearSVC

from llmbook import data
from llmbook.corpus import word_runs

__all__ = [
    "IMAGES",
    "NAMES",
    "TEXT",
    "add_vectors",
    "bank_task",
    "choose",
    "classic",
    "column",
    "crossed_interval",
    "digits_task",
    "draw",
    "library_task",
    "minilm",
    "shifted",
    "trial",
    "words",
]

Task = dict[str, Any]
Method = Callable[[Task, np.ndarray, np.ndarray, int, Sequence[Any]], np.ndarray]
Features = Callable[[Task, np.ndarray, np.ndarray], tuple[Any, Any]]

# --- tasks ----------------------------------------------------------------------------

NAMES = re.compile(  # of the five libraries, long and short
    r"(?i)numpy|scipy|scikits?(-learn)?|sklearn|pandas|pydata|matplotlib|"
    r"pyplot|pylab|(?<![a-z])(np|pd|plt|mpl)(?![a-z])"
)


def bank_task() -> Task:
    """Return the bank's intents as a task with an easy and a hard test."""
    bank = data.intents()
    labels = [bank.train_labels, bank.test_easy_labels, bank.test_hard_labels]
    return {
        "texts": np.array(
            [*bank.train_texts, *bank.test_easy_texts, *bank.test_hard_texts]
        ),
        "y": np.concatenate(labels),
        "pool": np.arange(600),  # 60 for each of 10 intents
        "tests": {"easy": np.arange(600, 700), "hard": np.arange(700, 820)},
    }


def _package_of_paragraph() -> dict[str, int]:
    """Number of the library that each prose paragraph stands in."""
    whole = data.documentation("all")
    pins = [pin.sha256 for pin in data.PINS.values()]
    ends: list[int] = []
    digest, place = hashlib.sha256(), 0
    fresh = True
    for document in whole.split(data.BETWEEN_DOCUMENTS):
        joined = document if fresh else data.BETWEEN_DOCUMENTS + document
        digest.update(joined.encode())
        fresh = False
        place += len(document) + len(data.BETWEEN_DOCUMENTS)
        if digest.hexdigest() == pins[len(ends)]:  # a package is complete
            ends.append(place)
            digest, fresh = hashlib.sha256(), True
    package: dict[str, int] = {}
    place = 0
    for document in data.documentation("prose").split(data.BETWEEN_DOCUMENTS):
        place = max(place, whole.find(document[:40], place))
        number = int(np.searchsorted(ends, place, side="right"))
        package |= dict.fromkeys(document.split("\n\n"), number)
    return package


def library_task(n_pool: int = 600, n_test: int = 60, n_words: int = 24) -> Task:
    """From which of five libraries does a paragraph of documentation come?

    Names of the libraries are masked, whole documents stay on one side, texts that
    begin with the same eight words are taken once, and no text of the pool shares a
    run of eight words with the test. Texts are cut to ``n_words`` words; ``n_pool``
    and ``n_test`` count texts per library.
    """
    package, taken = _package_of_paragraph(), set()
    sides: tuple[list, list] = ([], [])
    for document in data.documentation("prose").split(data.BETWEEN_DOCUMENTS):
        side = sides[hashlib.sha256(document.encode()).digest()[0] < 51]
        for paragraph in document.split("\n\n"):
            text = NAMES.sub("library", paragraph).split()[:n_words]
            key = tuple(text[:8])
            if len(text) >= 12 and key not in taken:
                taken.add(key)
                side.append((" ".join(text), package[paragraph]))
    pool, test = sides
    seen = {run for text, _ in test for run in word_runs(text, 8)}
    pool = [row for row in pool if seen.isdisjoint(word_runs(row[0], 8))]
    order = np.random.default_rng(0)
    rows: list[tuple[str, int]] = []
    for side, n in ((pool, n_pool), (test, n_test)):
        y = np.array([label for _, label in side])
        for c in range(5):
            found = order.permutation(np.flatnonzero(y == c))[:n]
            rows += [side[i] for i in found]
    return {
        "texts": np.array([text for text, _ in rows]),
        "y": np.array([label for _, label in rows]),
        "pool": np.arange(5 * n_pool),
        "tests": {"library": np.arange(5 * n_pool, len(rows))},
    }


def digits_task() -> Task:
    """Return scikit-learn's digits in file order, with edges in nine windows."""
    X, y = load_digits(return_X_y=True)
    pictures = X.reshape(-1, 8, 8)
    up, across = np.gradient(pictures, axis=(1, 2))
    angle = np.arctan2(up, across) % (2 * np.pi)
    share = (angle[..., None] * 4 / np.pi).astype(int) % 8 == np.arange(8)
    strength = share * np.hypot(up, across)[..., None]  # (N, 8, 8, 8 directions)
    cells = [
        strength[:, i : i + 4, j : j + 4].sum((1, 2))
        for i in (0, 2, 4)
        for j in (0, 2, 4)
    ]
    edges = np.sqrt(np.concatenate(cells, axis=1))  # (N, 72)
    return {
        "pixels": X / 16,
        "edges": edges / np.linalg.norm(edges, axis=1, keepdims=True),
        "y": y,
        "pool": np.arange(1200),
        "tests": {"last 597": np.arange(1200, 1797)},
    }


@functools.cache
def minilm() -> data.MiniLM:
    """Load MiniLM once."""
    return data.minilm()


def add_vectors(task: Task, random: bool = False) -> Task:
    """Add a vector for every text: MiniLM's, and its word table averaged.

    With ``random`` also those of the same six layers with random weights.
    """
    model, texts = minilm(), list(task["texts"])
    task["minilm"] = model.encode(texts)
    table = model.weights["embeddings.word_embeddings.weight"]
    table = table / np.linalg.norm(table, axis=1, keepdims=True)
    ids = [e.ids[1:-1] for e in model.tokenizer.encode_batch(texts)]
    means = np.array([table[row].mean(axis=0) for row in ids])
    task["table"] = means / np.linalg.norm(means, axis=1, keepdims=True)
    if random:
        noise = np.random.default_rng(0)
        weights = {
            name: noise.normal(0, 0.02, w.shape).astype(np.float32)
            if w.ndim == 2
            else np.full_like(w, name.endswith("LayerNorm.weight"))
            for name, w in model.weights.items()
        }
        task["random"] = model.encode(texts, weights)
    return task


# --- the trial ------------------------------------------------------------------------


def draw(task: Task, n: int, seed: int) -> np.ndarray:
    """Rows of n pool examples per class; a larger n contains a smaller.

    Built in ch-small-samples.
    """
    order, pool = np.random.default_rng(seed), task["pool"]
    y = task["y"][pool]
    rows = [order.permutation(pool[y == c])[:n] for c in np.unique(y)]
    return np.concatenate(rows)


def choose(
    task: Task, method: Method, configs: Sequence[Any], train: np.ndarray, seed: int
) -> np.ndarray:
    """Right answers of each configuration in two-fold cross-validation.

    Built in ch-small-samples.
    """
    y, hits = task["y"], np.zeros(len(configs), dtype=int)
    folds = StratifiedKFold(2, shuffle=True, random_state=seed)
    for fit, held in folds.split(train, y[train]):
        found = method(task, train[fit], train[held], seed, configs)
        hits += (found == y[train[held]]).sum(axis=1)
    return hits


def trial(
    task: Task, method: Method, configs: Sequence[Any], n: int, seed: int
) -> dict[str, Any]:
    """Choose a configuration, fit it, answer the test sets.

    Built in ch-small-samples.
    """
    train = draw(task, n, seed)
    start = process_time()
    hits = np.zeros(1, dtype=int)
    if len(configs) > 1:
        hits = choose(task, method, configs, train, seed)
    best, middle = int(hits.argmax()), process_time()
    where = np.concatenate(list(task["tests"].values()))
    found = method(task, train, where, seed, configs[best : best + 1])[0]
    seconds = middle - start, process_time() - middle
    return {"chosen": best, "hits": hits, "found": found, "seconds": seconds}


def crossed_interval(
    d: np.ndarray, share: float = 0.0, level: float = 0.95
) -> tuple[float, float]:
    """Interval of the mean of d (draws, items) over both lotteries.

    Each draw took ``share`` of its pool, at random: the nearer to 1, the less the
    draws differ, and the more their variance is raised.

    Source: Satterthwaite (1946). Built in ch-small-samples.
    """
    D, M = d.shape
    row, column = d.mean(1, keepdims=True), d.mean(0, keepdims=True)
    rest = ((d - row - column + d.mean()) ** 2).sum() / ((D - 1) * (M - 1))
    squares = np.array([M * row.var(ddof=1), D * column.var(ddof=1), rest])
    squares[0] /= 1 - share  # of the pool, in one draw
    freedom = np.array([D - 1, M - 1, (D - 1) * (M - 1)])
    total = max(squares @ [1, 1, -1], *squares[:2])
    df = total**2 / max((squares**2 / freedom).sum(), 1e-300)
    half = stats.t.ppf((1 + level) / 2, max(df, 1)) * np.sqrt(total / (D * M))
    return float(d.mean() - half), float(d.mean() + half)


# --- methods --------------------------------------------------------------------------


def words(task: Task, train: np.ndarray, where: np.ndarray) -> tuple[Any, Any]:
    """TF-IDF rows, the vocabulary taken from the training sample."""
    fit = TfidfVectorizer(sublinear_tf=True)
    rows = fit.fit_transform(task["texts"][train])
    return rows, fit.transform(task["texts"][where])


def column(name: str) -> Features:
    """Rows of an array that the task carries."""
    return lambda task, train, where: (task[name][train], task[name][where])


def classic(features: Features, make: Callable[[Any, int], Any]) -> Method:
    """One row of answers for each configuration: ``make(config, seed)`` is fitted."""

    def answers(
        task: Task,
        train: np.ndarray,
        where: np.ndarray,
        seed: int,
        configs: Sequence[Any],
    ) -> np.ndarray:
        a, b = features(task, train, where)
        y = task["y"][train]
        return np.array([make(c, seed).fit(a, y).predict(b) for c in configs])

    return answers


def shifted(make: Callable[[Any, int], Any]) -> Method:
    """Fit on every picture and on its four shifts by one pixel."""

    def answers(
        task: Task,
        train: np.ndarray,
        where: np.ndarray,
        seed: int,
        configs: Sequence[Any],
    ) -> np.ndarray:
        x, y = task["pixels"][train].reshape(-1, 8, 8), task["y"][train]
        x = np.pad(x, ((0, 0), (1, 1), (1, 1)))
        corners = [(1, 1), (0, 1), (2, 1), (1, 0), (1, 2)]
        copies = [x[:, i : i + 8, j : j + 8].reshape(-1, 64) for i, j in corners]
        x, y, asked = np.concatenate(copies), np.tile(y, 5), task["pixels"][where]
        return np.array([make(c, seed).fit(x, y).predict(asked) for c in configs])

    return answers


def _logistic(c: float, seed: int) -> LogisticRegression:
    return LogisticRegression(C=c, max_iter=1000)


def _forest(c: tuple, seed: int) -> RandomForestClassifier:
    return RandomForestClassifier(
        100, max_features=c[0], min_samples_leaf=c[1], random_state=seed
    )


def _svm(c: tuple, seed: int) -> SVC:
    return SVC(C=c[0], gamma=c[1])


_WIDE = [0.3, 3, 30, 300]  # values of C
_TREES = [("sqrt", 1), ("sqrt", 2), (0.2, 1), (0.2, 2)]
_NEAR = [1, 3, 5, 9]  # neighbours
_CURVED = [(3, "scale"), (30, "scale"), (3, 0.02), (30, 0.02)]  # C, gamma

TEXT: dict[str, tuple[Method, list]] = {  # name: (method, configurations)
    "naive Bayes": (
        classic(words, lambda c, seed: MultinomialNB(alpha=c)),
        [0.03, 0.1, 0.3, 1],
    ),
    "logistic regression": (classic(words, _logistic), _WIDE),
    "linear SVM": (
        classic(words, lambda c, seed: LinearSVC(C=c)),
        [0.03, 0.3, 3, 30],
    ),
    "random forest": (classic(words, _forest), _TREES),
    "nearest neighbours": (
        classic(words, lambda c, seed: KNeighborsClassifier(c, metric="cosine")),
        _NEAR,
    ),
    "MiniLM + centroid": (
        classic(column("minilm"), lambda c, seed: NearestCentroid()),
        [None],  # nothing to tune
    ),
    "MiniLM + logistic": (classic(column("minilm"), _logistic), _WIDE),
    "MiniLM's table + logistic": (classic(column("table"), _logistic), _WIDE),
    "random MiniLM + logistic": (classic(column("random"), _logistic), _WIDE),
}
IMAGES: dict[str, tuple[Method, list]] = {
    "naive Bayes": (
        classic(column("pixels"), lambda c, seed: GaussianNB(var_smoothing=c)),
        [1e-3, 1e-2, 0.1, 1],
    ),
    "logistic regression": (
        classic(column("pixels"), _logistic),
        [0.03, 0.3, 3, 30],
    ),
    "SVM": (classic(column("pixels"), _svm), _CURVED),
    "random forest": (classic(column("pixels"), _forest), _TREES),
    "nearest neighbours": (
        classic(column("pixels"), lambda c, seed: KNeighborsClassifier(c)),
        _NEAR,
    ),
    "SVM on edges": (classic(column("edges"), _svm), _CURVED),
    "SVM + shifts": (shifted(_svm), _CURVED),
}
