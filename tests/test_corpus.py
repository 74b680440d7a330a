"""Corpus: against exact sets, trusted libraries, and the mistakes people make."""

import json
import os
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from llmbook import corpus

TEXT = (
    "The gradient of the loss points in the direction of steepest ascent, so that "
    "every step of the optimiser goes the other way, and the length of that step "
    "has to be chosen with care."
)
CHINESE = [
    "哈希函数把任意长的文字变成固定长的数字,相同的文字总是得到相同的数字。",
    "梯度指向损失上升最快的方向,所以每一步都朝相反的方向走。",
]


# --- rules ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, flag",
    [
        ("too short.", "short"),
        (TEXT.rstrip(".") + " and", "cut off"),
        ("buy cheap watches now " * 20 + ".", "repetition"),
        (("0.123 4.567\n" * 20) + "the of.", "no letters"),
        (TEXT.replace("step", "â€œstepâ€"), "mojibake"),
        ("We use cookies.\n" + TEXT + "\nAll rights reserved.", "boilerplate"),
        ("gradient descent converges slowly here " * 1 + "x " * 40 + ".", "stop words"),
        (TEXT + " # " * 12 + ".", "symbols"),
        (
            "a b of the " + "incomprehensibilities " * 1 + "of to c d " * 9,
            "word length",
        ),
    ],
)
def test_each_rule_names_what_it_found(text, flag):
    assert flag in corpus.quality_flags(text)


def test_good_text_breaks_no_rule():
    assert corpus.quality_flags(TEXT) == []


def test_chinese_counts_by_character():
    assert corpus.words("用 NumPy 计算") == ["用", "NumPy", "计", "算"]
    assert "short" not in corpus.quality_flags(CHINESE[0] + "。")


# --- exact copies --------------------------------------------------------------------


def test_spelling_does_not_matter_and_script_does():
    assert corpus.fingerprint("The  Cat\nsat") == corpus.fingerprint("the cat sat ")
    assert corpus.fingerprint("\ufb01t") == corpus.fingerprint("fit")
    texts = [*CHINESE, "γράμμα", "x = y + 1", "x = y - 1", "123"]
    assert len({corpus.fingerprint(t) for t in texts}) == len(texts)


# --- MinHash -------------------------------------------------------------------------


def shuffled_texts(rng, n):
    pool = [f"word{i}" for i in range(500)]
    return [" ".join(rng.choice(pool, rng.integers(40, 90))) for _ in range(n)]


def test_shingles_are_the_sets_of_runs():
    hasher = corpus.MinHash(n_words=3)
    found = corpus.normalise(TEXT).split()
    runs = {tuple(found[i : i + 3]) for i in range(len(found) - 2)}
    assert len(hasher.shingles(TEXT)) == len(runs)
    half = " ".join(TEXT.split()[:15])
    assert set(hasher.shingles(half)) <= set(hasher.shingles(TEXT))


def test_order_of_words_matters():
    hasher = corpus.MinHash(n_words=2)
    assert set(hasher.shingles("a b")) != set(hasher.shingles("b a"))


def test_estimates_are_unbiased_and_spread_as_theory_says():
    rng = np.random.default_rng(0)
    a = shuffled_texts(rng, 60)
    b = [t[: len(t) // 2] + " " + u[len(u) // 2 :] for t, u in zip(a, reversed(a))]
    hasher = corpus.MinHash(n_hashes=256, n_words=2)
    sets = [(set(hasher.shingles(x)), set(hasher.shingles(y))) for x, y in zip(a, b)]
    exact = np.array([len(x & y) / len(x | y) for x, y in sets])
    agree = np.array(
        [(hasher.signature(x) == hasher.signature(y)).mean() for x, y in zip(a, b)]
    )
    z = (agree - exact) / np.sqrt(exact * (1 - exact) / 256)
    assert abs(z.mean()) < 0.5 and 0.7 < z.std() < 1.3


def test_short_texts_have_signatures_of_their_own():
    hasher = corpus.MinHash()
    a, b = hasher.signature("one two"), hasher.signature("three four")
    assert (a != b).all()
    assert (hasher.signature("one two") == a).all()


def test_text_without_words_is_refused():
    with pytest.raises(ValueError, match="no shingles"):
        corpus.MinHash().signature(" \n ")
    with pytest.raises(ValueError, match="at least 1"):
        corpus.MinHash(n_hashes=0)


def test_signatures_are_the_same_in_every_process():
    code = (
        "from llmbook.corpus import MinHash;"
        "print(MinHash(seed=3).signature('the cat sat on the mat').tolist())"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    here = corpus.MinHash(seed=3).signature("the cat sat on the mat").tolist()
    assert seen == {f"{here}\n"}


def test_equal_bands_and_only_they_share_a_key():
    rng = np.random.default_rng(0)
    sig = rng.integers(0, 3, (200, 12)).astype(np.uint64)
    keys = corpus.band_keys(sig, 4, 3)
    for band in range(4):
        part = sig[:, 3 * band : 3 * band + 3]
        same = (part[:, None] == part[None]).all(axis=2)
        assert np.array_equal(same, keys[:, band, None] == keys[None, :, band])
    with pytest.raises(ValueError, match="do not fit"):
        corpus.band_keys(sig, 5, 3)


def test_bucket_pairs_link_exactly_the_rows_that_agree_somewhere():
    keys = np.random.default_rng(1).integers(0, 30, (50, 3)).astype(np.uint64)
    pairs = corpus.bucket_pairs(keys)
    assert all(i < j and (keys[i] == keys[j]).any() for i, j in pairs)
    wanted = {
        (i, j)
        for i in range(50)
        for j in range(i + 1, 50)
        if (keys[i] == keys[j]).any()
    }
    ours, full = corpus.components(50, pairs), corpus.components(50, wanted)
    assert np.array_equal(ours, full)


def test_one_large_bucket_costs_one_link_a_row():
    assert corpus.bucket_pairs(np.full(2000, 7, dtype=np.uint64)) == {
        (0, i) for i in range(1, 2000)
    }
    assert corpus.bucket_pairs(np.arange(5, dtype=np.uint64)) == set()


@pytest.mark.parametrize("n_pairs", [0, 20, 60, 200])
def test_components_are_scipys_named_by_their_first_member(n_pairs):
    rng = np.random.default_rng(n_pairs)
    pairs = [tuple(p) for p in rng.integers(0, 80, (n_pairs, 2)).tolist()]
    label = corpus.components(80, pairs)
    rows, columns = np.array(pairs, dtype=int).reshape(-1, 2).T
    graph = coo_array((np.ones(len(rows)), (rows, columns)), shape=(80, 80))
    n, theirs = connected_components(graph, directed=False)
    assert len(set(label)) == n == len(set(zip(label, theirs)))
    assert all(label[i] == np.flatnonzero(label == label[i])[0] for i in range(80))


def test_near_duplicates_keep_the_first():
    hasher = corpus.MinHash()
    texts = [
        CHINESE[0],
        TEXT,
        "Something else entirely, of some length.",
        TEXT + " Yes",
    ]
    sig = np.array([hasher.signature(t) for t in texts])
    assert corpus.near_duplicates(sig).tolist() == [0, 1, 2, 1]


# --- contamination -------------------------------------------------------------------


def test_word_runs():
    assert corpus.word_runs("A b C d", 3) == {"a b c", "b c d"}
    assert corpus.word_runs("a b", 3) == set()
    with pytest.raises(ValueError, match="at least 1"):
        corpus.word_runs("a", 0)


@pytest.mark.parametrize(
    "leak",
    [
        CHINESE[0],
        "機械学習はデータから規則を見つける方法である。",
        "การเรียนรู้ของเครื่องค้นหากฎจากข้อมูล",
        "ចំណេះដឹងមកពីទិន្នន័យ",
    ],
)
def test_a_leak_without_spaces_is_found(leak):
    train = [f"{CHINESE[1]}{leak}完", CHINESE[1], TEXT]
    assert corpus.decontaminate(train, [f"Title\n\n问题{leak}"]) == train[1:]


def test_text_with_spaces_has_the_runs_of_its_split():
    for text in (TEXT, "Größe\u00a0und\u2003naïve\x1cx 한국어 текст γ 3.14 “quoted”"):
        found = text.lower().split()
        assert corpus.words(text.lower()) == found
        assert corpus.word_runs(text, 2) == {f"{a} {b}" for a, b in pairwise(found)}


def test_decontaminate_removes_paragraphs_and_empty_documents():
    leak = "one two three four five six seven eight nine"
    train = [f"keep me\n\n{leak} ten", leak.upper(), "other text", "one two three four"]
    assert corpus.decontaminate(train, [f"x\n\nzero {leak}"]) == [
        "keep me",
        "other text",
        "one two three four",
    ]
    assert corpus.decontaminate(train, []) == train


def test_runs_do_not_span_paragraphs():
    assert corpus.decontaminate(["a b c d"], ["a b\n\nc d"], 4) == ["a b c d"]


# --- personal data -------------------------------------------------------------------


@pytest.mark.parametrize("number", ["4111 1111 1111 1111", "79927398713", "0"])
def test_luhn_accepts_published_numbers(number):
    assert corpus.luhn(number)


@pytest.mark.parametrize("text", ["", "abc", "- -"])
def test_luhn_refuses_what_has_no_digits(text):
    assert corpus.luhn(text) is False


def test_luhn_sees_every_changed_digit():
    number = "4111111111111111"
    for i in range(16):
        for digit in "0123456789":
            other = number[:i] + digit + number[i + 1 :]
            assert corpus.luhn(other) == (other == number)


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("mail ada.l@example.co.uk.", "mail <email>."),
        ("from 192.168.0.255 on", "from <ip> on"),
        ("card 4111-1111-1111-1111,", "card <card>,"),
        ("号码 138 1234 5678。", "号码 <cn_mobile>。"),
        ("ID 11010519491231002X now", "ID <cn_id> now"),
        ("call (212) 555-0123!", "call <phone>!"),
        ("v1.24.300.1, (1024, 768), 3.14159265358979", None),
        ("4111 1111 1111 1112", None),
        ("2024-06-17T12:30:00 and 1e-10", None),
    ],
)
def test_redact(text, wanted):
    assert corpus.redact(text) == (wanted or text)


# --- one worker's share --------------------------------------------------------------


def test_sketch_is_a_function_of_its_rows():
    rows = [(7, TEXT), (2, CHINESE[0])]
    for a, b in zip(corpus.sketch(rows), corpus.sketch(rows)):
        assert a[:3] == b[:3] and np.array_equal(a[3], b[3])
    assert [row[0] for row in corpus.sketch(rows)] == [7, 2]


# --- the runs that are stored --------------------------------------------------------


def test_stored_runs_come_from_the_cells_that_the_chapter_has_now(benchmark_module):
    runs = benchmark_module("pretraining_data")
    stored = json.loads(runs.RESULTS.read_text())
    assert stored["shared_cells"] == runs.fingerprint(runs.shared_cells())
    assert {"decoder_arm", "canaries"} <= set(runs.chapter_names())
