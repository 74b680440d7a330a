"""Masks and spans: what is asked, what is shown, and nothing lost on the way."""

import itertools
import math
from collections import Counter

import pytest
import torch
from scipy import stats

from llmbook.objectives import corrupt_spans, mask_tokens, noise_spans


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_labels_are_the_clean_tokens_and_the_rest_is_left_alone():
    ids = torch.randint(5, 90, (50, 40), generator=seeded())
    before = ids.clone()
    inputs, labels = mask_tokens(ids, 3, 90, seeded(1), rate=0.3)
    asked = labels != -100
    assert torch.equal(ids, before)
    assert torch.equal(labels[asked], ids[asked])
    assert torch.equal(inputs[~asked], ids[~asked])


def test_shares_follow_the_rule():
    ids = torch.full((2000, 100), 50)
    inputs, labels = mask_tokens(ids, 3, 50, seeded(2), rate=0.2)
    asked = labels != -100
    n = int(asked.sum())
    share = n / ids.numel()
    assert abs(share - 0.2) < 4 * (0.2 * 0.8 / ids.numel()) ** 0.5
    for count, p in (
        (int((inputs == 3)[asked].sum()), 0.8 + 0.1 / 50),
        (int((inputs == 50)[asked].sum()), 0.1),
    ):
        assert abs(count / n - p) < 4 * (p * (1 - p) / n) ** 0.5
    assert set(inputs[asked].tolist()) == set(range(51))


def test_nothing_forbidden_is_asked():
    ids = torch.randint(5, 90, (30, 40), generator=seeded())
    never = ids % 2 == 0
    inputs, labels = mask_tokens(ids, 3, 90, seeded(), rate=0.9, never=never)
    assert (labels[never] == -100).all() and torch.equal(inputs[never], ids[never])


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, 15])
def test_a_rate_that_is_no_rate(rate):
    with pytest.raises(ValueError, match="rate"):
        mask_tokens(torch.zeros(3, dtype=torch.long), 1, 2, rate=rate)


@pytest.mark.parametrize(
    "length, n_noise, n_spans",
    [(56, 8, 3), (10, 5, 5), (7, 6, 2), (4, 1, 1), (9, 8, 1)],
)
def test_spans_have_the_given_totals_and_do_not_touch(length, n_noise, n_spans):
    generator, first, last = seeded(), False, False
    for _ in range(300):
        noise = noise_spans(length, n_noise, n_spans, generator)
        starts = [h and (i == 0 or not noise[i - 1]) for i, h in enumerate(noise)]
        assert len(noise) == length
        assert (sum(noise), sum(starts)) == (n_noise, n_spans)
        first, last = first or noise[0], last or noise[-1]
    assert first and last  # both ends can be hidden


@pytest.mark.parametrize("length, n_noise, n_spans", [(7, 3, 2), (6, 4, 2), (5, 2, 1)])
def test_every_mask_is_equally_likely(length, n_noise, n_spans):
    def starts(mask):
        return sum(h and not before for before, h in zip((0, *mask), mask))

    masks = [
        mask
        for mask in itertools.product((False, True), repeat=length)
        if (sum(mask), starts(mask)) == (n_noise, n_spans)
    ]
    kept = length - n_noise
    ways = math.comb(n_noise - 1, n_spans - 1) * math.comb(kept + 1, n_spans)
    assert len(masks) == ways  # every cut with every choice of gaps
    generator, n = seeded(), 200 * ways
    drawn = Counter(
        tuple(noise_spans(length, n_noise, n_spans, generator)) for _ in range(n)
    )
    assert set(drawn) == set(masks)
    assert stats.chisquare([drawn[mask] for mask in masks]).pvalue > 0.001


@pytest.mark.parametrize("n_noise, n_spans", [(3, 4), (8, 4), (3, 0)])
def test_spans_that_cannot_be(n_noise, n_spans):
    with pytest.raises(ValueError, match="spans cannot hide"):
        noise_spans(10, n_noise, n_spans)


def test_the_example_of_the_t5_paper():
    words = "Thank you for inviting me to your party last week".split()
    hidden = [w in {"for", "inviting", "last"} for w in words]
    inputs, targets = corrupt_spans(words, hidden, ["<X>", "<Y>", "<Z>"])
    assert " ".join(inputs) == "Thank you <X> me to your party <Y> week"
    assert " ".join(targets) == "<X> for inviting <Y> last <Z>"


def test_corruption_can_be_undone():
    generator, sentinels = seeded(), [-1, -2, -3, -4, -5]
    for _ in range(100):
        noise = noise_spans(30, 9, 4, generator)
        inputs, targets = corrupt_spans(range(30), noise, sentinels)
        assert len(inputs) == 30 - 9 + 4 and len(targets) == 9 + 4 + 1
        answers, text = {}, []
        for token in targets:
            if token < 0:
                answers[token] = []
            else:
                answers[min(answers)].append(token)
        for token in inputs:
            text += answers.get(token, [token])
        assert text == list(range(30))


def test_too_few_sentinels():
    with pytest.raises(ValueError, match="2 spans need 3 sentinels"):
        corrupt_spans([1, 2, 3], [True, False, True], [-1, -2])


def test_agrees_with_the_library_in_what_is_asked():
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    vocabulary = {f"t{i}": i for i in range(100)} | {"<mask>": 100, "<pad>": 101}
    wrapped = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(
            tokenizers.models.WordLevel(vocabulary, unk_token="t0")
        ),
        mask_token="<mask>",
        pad_token="<pad>",
    )
    ids = torch.randint(0, 100, (2000, 50), generator=seeded())
    collate = transformers.DataCollatorForLanguageModeling(wrapped, seed=0)
    theirs = collate([{"input_ids": row} for row in ids.tolist()])
    ours = mask_tokens(ids, 100, 100, seeded())
    shares = []
    for inputs, labels in (ours, (theirs["input_ids"], theirs["labels"])):
        asked = labels != -100
        kept = torch.stack([asked, asked & (inputs == 100), asked & (inputs == ids)])
        shares.append(kept.float().mean((1, 2)))
    assert (shares[0] - shares[1]).abs().max() < 0.005
