"""Checks of the exercises in ch-pretraining-data. References are independent."""

import random
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from llmbook.grading import Check, Exercise

F = Callable[..., Any]

# --- pretraining_data-1: bands and rows ---------------------------------------------


def _cost(bands: int, rows: int, low: float, high: float) -> float:
    """Share of similar pairs missed plus share of dissimilar pairs caught, by loops."""
    miss, quiet = 1.0, 1.0
    for _ in range(bands):
        miss *= 1.0 - high**rows
        quiet *= 1.0 - low**rows
    return miss + (1.0 - quiet)


def _chosen(f: F, n_hashes: int, low: float, high: float) -> tuple[int, int]:
    answer = f(n_hashes, low, high)
    if not isinstance(answer, tuple) or len(answer) != 2:
        raise AssertionError(f"wanted a tuple (bands, rows), got {answer!r}")
    bands, rows = answer
    if bands != int(bands) or rows != int(rows) or not 0 < bands * rows <= n_hashes:
        raise AssertionError(
            f"{bands} bands of {rows} do not fit into {n_hashes} values"
        )
    return bands, rows


def _best(f: F, n_hashes: int, low: float, high: float) -> None:
    bands, rows = _chosen(f, n_hashes, low, high)
    if bands != n_hashes // rows:
        raise AssertionError(
            f"{bands} bands of {rows} out of {n_hashes}: more would fit"
        )
    table = {r: _cost(n_hashes // r, r, low, high) for r in range(1, n_hashes + 1)}
    wanted = min(table, key=table.__getitem__)
    if table[rows] > table[wanted] + 1e-12:
        raise AssertionError(
            f"n_hashes = {n_hashes}, low = {low:.2f}, high = {high:.2f}: {rows} rows "
            f"cost {table[rows]:.4f}, but {wanted} rows cost {table[wanted]:.4f}"
        )


def _bands_usual(f: F) -> None:
    for n_hashes, low, high in ((112, 0.5, 0.8), (128, 0.3, 0.6), (60, 0.6, 0.9)):
        _best(f, n_hashes, low, high)
    # One band fewer than a fraction would suggest, and the choice is another.
    _best(f, 5, 0.4, 0.8)
    _best(f, 15, 0.8, 0.9)


def _bands_random(f: F) -> None:
    rng = random.Random()
    for _ in range(30):
        low = rng.uniform(0.02, 0.9)
        _best(f, rng.randint(5, 90), low, low + rng.uniform(0.02, 0.98 - low))


def _bands_ends(f: F) -> None:
    _best(f, 1, 0.2, 0.7)  # a single value
    _best(f, 6, 0.9999, 0.99999)  # all values in one band
    _best(f, 3, 0.96, 0.999)
    _best(f, 40, 0.001, 0.01)  # one row each


# --- pretraining_data-2: a check sum modulo 97 --------------------------------------

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def _residue(account: str) -> int:
    """Check sum digit by digit, without building the long number."""
    value = 0
    for c in account[4:] + account[:4]:
        n = int(c) if c.isdigit() else 10 + _LETTERS.index(c)
        value = (value * (100 if n > 9 else 10) + n) % 97
    return value


def _account(rng: random.Random) -> str:
    """Make a valid account number of random length."""
    country = "".join(rng.choice(_LETTERS) for _ in range(2))
    size = rng.randint(11, 26)
    body = "".join(rng.choice("0123456789" * 3 + _LETTERS) for _ in range(size))
    check = 98 - _residue(country + "00" + body)
    return f"{country}{check:02d}{body}"


def _said(f: F, text: str, wanted: bool, what: str) -> None:
    answer = f(text)
    if not isinstance(answer, bool):
        raise AssertionError(f"{what}: wanted True or False, got {answer!r}")
    if answer != wanted:
        raise AssertionError(f"{what}: {text!r} gives {answer}, wanted {wanted}")


def _iban_valid(f: F) -> None:
    rng = random.Random()
    _said(f, "GB82WEST12345698765432", True, "a published example")
    for _ in range(20):
        _said(f, _account(rng), True, "a valid number")


def _iban_typed(f: F) -> None:
    rng = random.Random()
    for _ in range(10):
        number = _account(rng)
        spaced = " ".join(number[i : i + 4] for i in range(0, len(number), 4))
        _said(f, spaced, True, "in groups of four")
        _said(f, spaced.lower(), True, "in small letters")


def _iban_wrong(f: F) -> None:
    rng = random.Random()
    for _ in range(20):
        number = _account(rng)
        i = rng.randrange(4, len(number))
        other = rng.choice([c for c in "0123456789" if c != number[i]])
        wrong = number[:i] + other + number[i + 1 :]
        _said(f, wrong, _residue(wrong) == 1, "one character changed")
        j = rng.randrange(4, len(number) - 1)
        swapped = number[:j] + number[j + 1] + number[j] + number[j + 2 :]
        _said(f, swapped, _residue(swapped) == 1, "two neighbours exchanged")
    for check in range(2, 99):
        text = f"DE{check:02d}370400440532013000"
        _said(f, text, check == 89, "all check digits in turn")


# --- pretraining_data-3: containment ------------------------------------------------


def _close(answer: object, wanted: float, what: str) -> None:
    if not isinstance(answer, (int, float)) or abs(float(answer) - wanted) > 1e-9:
        raise AssertionError(f"{what}: {answer!r}, wanted {wanted:.6g}")


def _inside_sets(f: F) -> None:
    rng = random.Random()
    for _ in range(25):
        a = set(rng.sample(range(60), rng.randint(1, 40)))
        b = set(rng.sample(range(60), rng.randint(1, 40)))
        jaccard = float(Fraction(len(a & b), len(a | b)))
        what = f"|A| = {len(a)}, |B| = {len(b)}, {len(a & b)} in common"
        _close(f(jaccard, len(a), len(b)), len(a & b) / len(a), what)


def _inside_ends(f: F) -> None:
    _close(f(0.0, 7, 3), 0.0, "nothing in common")
    _close(f(1.0, 12, 12), 1.0, "equal sets")
    _close(f(0.1, 10, 100), 1.0, "A is a tenth of B and lies in it")
    _close(f(0.1, 100, 10), 0.1, "B is a tenth of A and lies in it")
    # An estimate gives no whole number of common shingles: nothing may be rounded.
    _close(f(0.37, 10, 13), 0.37 * 23 / 13.7, "an estimate of 0.37")


def _inside_noise(f: F) -> None:
    for jaccard, n_a, n_b in ((0.15, 10, 100), (0.9, 50, 90), (1.0, 5, 8)):
        _close(f(jaccard, n_a, n_b), 1.0, f"an estimate of {jaccard} that is too high")


# --- pretraining_data-4: groups across the cut --------------------------------------


def _leave(f: F, group: list[int], held: list[bool], what: str) -> None:
    tested = {g for g, h in zip(group, held) if h}
    wanted = [i for i, (g, h) in enumerate(zip(group, held)) if not h and g in tested]
    answer = f(np.array(group, dtype=int), np.array(held, dtype=bool))
    found = np.asarray(answer)
    if found.dtype == bool:
        raise AssertionError(f"{what}: wanted indices, got True and False")
    if found.tolist() != wanted:
        raise AssertionError(
            f"{what}: group {group}, held {held}: got {found.tolist()}, wanted {wanted}"
        )


def _leave_random(f: F) -> None:
    rng = random.Random()
    for _ in range(40):
        n = rng.randint(1, 14)
        group = [rng.randrange(6) for _ in range(n)]
        _leave(f, group, [rng.random() < 0.4 for _ in range(n)], "random groups")


def _leave_ends(f: F) -> None:
    _leave(f, [3, 3, 3], [False] * 3, "no test set")
    _leave(f, [3, 3, 3], [True] * 3, "no training set")
    _leave(f, [0, 1, 2], [True, False, False], "no copies")
    _leave(f, [7, 7, 0, 7], [False, True, False, False], "copies on either side")
    _leave(f, [5, 0, 5, 0], [True, True, False, False], "label 0 is a group too")


EXERCISES = {
    "pretraining_data-1": Exercise(
        function="choose_bands",
        checks=(
            Check(
                "usual sizes",
                _bands_usual,
                hint="A pair is missed when all bands differ: (1 - s^rows)^bands.",
            ),
            Check(
                "random sizes",
                _bands_random,
                hint="Try every number of rows; bands = n_hashes // rows.",
            ),
            Check(
                "one row, and one band",
                _bands_ends,
                hint="rows may be 1, and may be n_hashes.",
            ),
        ),
    ),
    "pretraining_data-2": Exercise(
        function="iban_ok",
        checks=(
            Check(
                "valid numbers",
                _iban_valid,
                hint="The first four characters go to the end; A is 10, Z is 35.",
            ),
            Check(
                "as people type them",
                _iban_typed,
                hint="Spaces and small letters do not change a number.",
            ),
            Check(
                "damaged numbers",
                _iban_wrong,
                hint="The remainder modulo 97 must be exactly 1.",
            ),
        ),
    ),
    "pretraining_data-3": Exercise(
        function="containment",
        checks=(
            Check(
                "against the sets themselves",
                _inside_sets,
                hint="|A ∩ B| + |A ∪ B| = |A| + |B|, and J is their ratio.",
            ),
            Check(
                "the ends",
                _inside_ends,
                hint="Divide by the size of A: the result is not symmetric.",
            ),
            Check(
                "an estimate that is too high",
                _inside_noise,
                hint="No more than all of A can lie in B.",
            ),
        ),
    ),
    "pretraining_data-4": Exercise(
        function="must_leave",
        checks=(
            Check(
                "random groups",
                _leave_random,
                hint="Collect the groups of the test set, then look for them outside.",
            ),
            Check(
                "the ends",
                _leave_ends,
                hint="Only training documents leave, wherever they stand.",
            ),
        ),
    ),
}
