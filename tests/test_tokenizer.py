"""Byte-level BPE: equal to the `tokenizers` library, and losing nothing."""

import json
import random
from itertools import pairwise

import pytest
from rivals import byte_level_bpe
from transformers.convert_slow_tokenizer import bytes_to_unicode

import llmbook.tokenizer
from llmbook.tokenizer import (
    PATTERN,
    Tokenizer,
    apply_merges,
    learn_merges,
    merge,
    train_bpe,
)

# Repetition makes merges, near-repetition makes ties, runs make overlaps.
SAMPLE = (
    """
The attention weights of the heads are the softmax of the scores; they're rows
that sum to one, aren't they?  A tokenizer that has tokenized tokens tokenizes.
    def attend(q, k, v):  # 123 4567 12.5e-3 aaaaaaa aaaa bbbbbb abababababa
        return softmax(q @ k.T / d**0.5) @ v
大模型的注意力机制，大模型的分词器：大模型。 naïve café Ünïcode ½ ² ٣ 🙂🙂🙃 \t\t\n\n x
"""
    * 2
    + " ".join(f"word{i % 7}s {i % 5}th" for i in range(60))
)


@pytest.fixture(scope="module")
def ours() -> Tokenizer:
    return train_bpe(SAMPLE, 400, special_tokens=["<|end|>", "<|end|>!"])


@pytest.mark.parametrize("vocab_size", [256, 257, 300, 5000])
def test_same_merges_in_the_same_order_as_tokenizers(vocab_size):
    theirs = byte_level_bpe(SAMPLE, vocab_size)
    model = json.loads(theirs.to_str())["model"]
    merges = [tuple(model["vocab"][side] for side in m) for m in model["merges"]]
    ours = train_bpe(SAMPLE, vocab_size)
    assert ours.merges == merges
    assert ours.vocab_size == theirs.get_vocab_size()
    new = SAMPLE[::-1] + "Unseen words don't matter: Ελληνικά, 12345 \u00a0\u3000 end\n"
    assert ours.encode(new) == theirs.encode(new).ids


def test_same_merges_on_random_text_full_of_ties():
    rng = random.Random(0)
    for _ in range(20):
        text = "".join(rng.choices("aab \n", k=200))
        model = json.loads(byte_level_bpe(text, 330).to_str())["model"]
        merges = [tuple(model["vocab"][side] for side in m) for m in model["merges"]]
        assert train_bpe(text, 330).merges == merges


def test_same_merges_as_counting_everything_again():
    rng = random.Random(2)
    for _ in range(10):
        letters = ["".join(rng.choices("ab", k=rng.randrange(1, 9))) for _ in range(8)]
        pieces = {piece.encode(): rng.randrange(1, 9) for piece in letters}
        words = {tuple(Tokenizer().encode(p)): n for p, n in pieces.items()}
        for new, learned in enumerate(learn_merges(pieces, 12), 256):
            counts: dict[tuple[int, int], int] = {}
            for word, n in words.items():
                for pair in pairwise(word):
                    counts[pair] = counts.get(pair, 0) + n
            assert learned == min(counts, key=lambda p: (-counts[p], p))
            words = {tuple(merge([*w], learned, new)): n for w, n in words.items()}


@pytest.mark.parametrize(
    ("ids", "pair", "merged"),
    [
        ([1, 1, 1], (1, 1), [9, 1]),
        ([1, 1, 1, 1], (1, 1), [9, 9]),
        ([1, 2, 1, 2, 1], (1, 2), [9, 9, 1]),
        ([2, 1, 1, 2], (1, 2), [2, 1, 9]),
        ([2, 1], (1, 2), [2, 1]),
        ([], (1, 2), []),
    ],
)
def test_merge_works_from_the_left(ids, pair, merged):
    before = [*ids]
    assert merge(ids, pair, 9) == merged
    assert ids == before


def test_a_long_piece_takes_no_more_rounds_than_there_are_merges(ours, monkeypatch):
    rng = random.Random(3)
    piece = "".join(rng.choices("abcdefghinorst", k=5000))
    rounds = []
    monkeypatch.setattr(
        llmbook.tokenizer, "merge", lambda *a: rounds.append(1) or merge(*a)
    )
    ranks = {pair: m for m, pair in enumerate(ours.merges)}
    ids = apply_merges(Tokenizer().encode(piece), ranks)
    assert 0 < len(rounds) <= len(ours.merges)
    assert ours.decode(ids) == piece


def test_encoding_again_gives_the_same_and_leaves_the_cache_alone(ours):
    first = ours.encode(SAMPLE)
    again = ours.encode(SAMPLE)
    assert again == first and again is not first
    first.clear()
    single = ours.encode("the")
    single.append(0)
    assert ours.encode("the") == single[:-1]


def test_ties_go_to_the_smallest_ids():
    tokenizer = train_bpe("cd ab", 257)  # every pair occurs once
    [(a, b)] = tokenizer.merges
    assert tokenizer.tokens[a] + tokenizer.tokens[b] == b"ab"


def test_bytes_are_numbered_as_gpt2_does():
    letters = bytes_to_unicode()  # byte to printable letter; ids follow the letters
    in_order = sorted(range(256), key=lambda byte: letters[byte])
    assert [Tokenizer().encode(bytes([byte])) for byte in in_order] == [
        [i] for i in range(256)
    ]


def test_merges_happen_in_the_order_learned():
    ab_first = Tokenizer([(65, 66), (66, 67)])  # GPT-2 order: id 65 is "b"
    b, c, d = (ab_first.encode(x)[0] for x in "bcd")
    assert (b, c, d) == (65, 66, 67)
    assert ab_first.encode("bcd") == [256, d]
    assert Tokenizer([(66, 67), (65, 66)]).encode("bcd") == [b, 256]


def test_pieces_cover_the_text_and_words_keep_their_space():
    assert PATTERN.findall("it's  20 cats!\n") == [
        "it",
        "'s",
        " ",
        " 20",
        " cats",
        "!",
        "\n",
    ]
    everything = "".join(map(chr, range(0x3000)))
    assert "".join(PATTERN.findall(everything)) == everything


def test_any_string_and_any_bytes_come_back(ours):
    rng = random.Random(1)
    texts = ["", " ", "\n", "\x00", SAMPLE, "e\u0301", "\ufffd", "👩‍👩‍👧", "a" * 3000]
    for _ in range(100):
        codes = [rng.choice((0x7F, 0x7FF, 0xD7FF, 0x10FFFF)) for _ in range(20)]
        points = [rng.randrange(top + 1) for top in codes]
        texts.append("".join(chr(p) for p in points if not 0xD800 <= p < 0xE000))
    for text in texts:
        assert ours.decode(ours.encode(text)) == text
        assert ours.encode(text.encode()) == ours.encode(text)
    for lone in ("\ud800", "a\udcffb\udfff", "\ud83d"):
        assert ours.decode(ours.encode(lone), errors="surrogatepass") == lone
        ours.decode(ours.encode(lone)).encode()  # the default can be printed
    for n in (*range(8), 5000):
        raw = rng.randbytes(n)
        assert ours.decode_bytes(ours.encode(raw)) == raw
    broken = "café".encode()[:-1]
    assert ours.decode_bytes(ours.encode(broken)) == broken
    assert ours.decode(ours.encode(broken)) == "caf\ufffd"


def test_special_tokens_are_whole_only_when_asked_for(ours):
    end, longer = ours.special["<|end|>"], ours.special["<|end|>!"]
    assert [end, longer] == [ours.vocab_size - 2, ours.vocab_size - 1]
    text = "one<|end|>two<|end|>!"
    ids = ours.encode(text, special=True)
    assert ids == [*ours.encode("one"), end, *ours.encode("two"), longer]
    assert ours.decode(ids) == text
    assert not {end, longer} & set(ours.encode(text))
    assert ours.decode(ours.encode(text)) == text


def test_special_tokens_are_cut_out_of_the_training_text():
    with_special = train_bpe("ab#ab#ab", 260, special_tokens=["#"])
    assert with_special.merges == train_bpe(["ab", "ab", "ab"], 259).merges
    assert all(b"#" not in t for t in with_special.tokens[256:-1])


def test_vocabulary_ends_when_no_pair_is_left():
    assert train_bpe("abc", 1000).vocab_size == 258
    assert train_bpe("", 1000).vocab_size == 256


def test_saved_tokenizer_is_the_same(ours, tmp_path):
    path = tmp_path / "tokenizer.json"
    ours.save(path)
    loaded = Tokenizer.load(path)
    assert loaded.tokens == ours.tokens and loaded.special == ours.special
    assert loaded.fingerprint == ours.fingerprint
    assert loaded.encode(SAMPLE) == ours.encode(SAMPLE)
    assert list(tmp_path.iterdir()) == [path]


def test_fingerprint_changes_with_merges_and_special_tokens():
    variants = [Tokenizer(), Tokenizer([(1, 2)]), Tokenizer([(2, 1)])]
    variants += [Tokenizer([(1, 2)], ["#"]), Tokenizer([(1, 2)], ["##"])]
    assert len({t.fingerprint for t in variants}) == len(variants)


def test_errors_say_what_to_do(ours):
    with pytest.raises(ValueError, match="too small: ask for at least 257"):
        train_bpe("text", 256, special_tokens=["<|end|>"])
    with pytest.raises(ValueError, match=r"id 400 is outside .* 0\.\.399"):
        ours.decode([1, 400])
    with pytest.raises(ValueError, match="id -1 is outside"):
        ours.decode_bytes([-1])
    for pair in ((65, 256), (256, 65), (-1, 65), (65, -1)):
        with pytest.raises(ValueError, match="does not exist yet"):
            Tokenizer([pair])
    assert Tokenizer([(0, 255)]).vocab_size == 257
    for merges, special in ([(1, 2), (1, 2)], []), ([], ["#", "#"]), ([], [""]):
        with pytest.raises(ValueError, match="repeated or empty"):
            Tokenizer(merges, special)


@pytest.mark.parametrize("special", ["<|end|>", [1], [b"#"], ["#", None]])
def test_special_tokens_must_be_a_list_of_strings(special, monkeypatch):
    monkeypatch.setattr(llmbook.tokenizer, "learn_merges", None)  # not reached
    with pytest.raises(TypeError, match="no list of str"):
        train_bpe("some text", 300, special)
    with pytest.raises(TypeError, match="no list of str"):
        Tokenizer([], special)


def test_wrong_special_tokens_are_found_before_training(monkeypatch):
    monkeypatch.setattr(llmbook.tokenizer, "learn_merges", None)  # not reached
    for special in (["#", "#"], ["#", ""]):
        with pytest.raises(ValueError, match="repeated or empty"):
            train_bpe("some text", 300, special)


@pytest.mark.parametrize("texts", [b"text", [b"text"], ["text", None]])
def test_texts_must_be_strings(texts):
    with pytest.raises(TypeError, match="texts must be str, not"):
        train_bpe(texts, 300)


@pytest.mark.parametrize("text", [None, 5, ["text"]])
def test_only_text_and_bytes_are_encoded(ours, text):
    with pytest.raises(TypeError, match="takes str or bytes, not"):
        ours.encode(text)


def test_merges_of_fractions_are_not_cut_to_integers():
    with pytest.raises(TypeError, match="float"):
        Tokenizer([(1, 2.7)])


def test_a_damaged_file_is_named(ours, tmp_path):
    path = tmp_path / "tokenizer.json"
    ours.save(path)
    whole = path.read_text()
    good = json.loads(whole)
    contents = [whole[:n] for n in (0, 1, len(whole) // 2, len(whole) - 1)]
    contents += ['{"merges": []}', "[1, 2]", "7", "null"]
    for change in (
        {"format": "another"},
        {"merges": None},
        {"merges": [[1, 2, 3]]},
        {"merges": [["1", "2"]]},
        {"merges": [[1, 2.7]]},
        {"merges": [[1, 2], [1, 2]]},
        {"merges": [[300, 1]]},
        {"special": "abc"},
        {"special": [1]},
        {"special": ["#", "#"]},
        {"special": [""]},
    ):
        contents.append(json.dumps(good | change))
    contents += [
        json.dumps({k: v for k, v in good.items() if k != key}) for key in good
    ]
    for content in contents:
        path.write_text(content)
        with pytest.raises(ValueError, match=r"tokenizer\.json is damaged or not"):
            Tokenizer.load(path)
    path.write_bytes(b"\xff\xfe{}")
    with pytest.raises(ValueError, match=r"tokenizer\.json is damaged or not"):
        Tokenizer.load(path)
    with pytest.raises(FileNotFoundError):
        Tokenizer.load(tmp_path / "missing.json")
    path.write_text(whole)
    assert Tokenizer.load(path).fingerprint == ours.fingerprint


def test_a_failed_save_leaves_the_old_file(ours, tmp_path, monkeypatch):
    path = tmp_path / "tokenizer.json"
    Tokenizer().save(path)
    before = path.read_bytes()
    broken = Tokenizer()
    broken.merges = [object()]  # cannot be written as JSON
    with pytest.raises(TypeError):
        broken.save(path)
    monkeypatch.setattr("os.replace", _disk_full)
    with pytest.raises(OSError, match="disk full"):
        ours.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(FileNotFoundError, match="create it"):
        ours.save(tmp_path / "missing" / "tokenizer.json")


def _disk_full(*_):
    raise OSError("disk full")
