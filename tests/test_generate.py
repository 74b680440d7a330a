"""Choosing tokens, and text that stops where it should."""

import dataclasses
import itertools

import pytest
import torch
from transformers import (
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from llmbook.generate import (
    Sampling,
    choose,
    complete,
    filter_logits,
    generate,
    generate_batch,
    stream,
    stream_text,
)
from llmbook.model import Config, Decoder
from llmbook.tokenizer import Tokenizer

BYTES = Tokenizer()  # one id per byte
CONFIG = Config(
    vocab_size=256, n_layers=2, n_heads=2, n_kv_heads=1, d_model=16, d_ff=32, max_len=48
)


@pytest.fixture(scope="module")
def model() -> Decoder:
    torch.manual_seed(0)
    model = Decoder(CONFIG)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    return model


class Script(Decoder):
    """A model that says a given text, whatever the prompt."""

    def __init__(self, text: bytes) -> None:
        super().__init__(CONFIG)
        self.text = BYTES.encode(text)

    def forward(self, tokens, cache=None, lengths=None):
        cache.length += tokens.shape[1]
        self.said = getattr(self, "said", 0) + 1
        logits = torch.zeros(*tokens.shape, 256)
        logits[:, -1, self.text[self.said - 1]] = 9.0
        return logits


def test_greedy_equals_the_argmax_without_a_cache(model):
    prompt = [5, 17, 99]
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(30):
            ids.append(model(torch.tensor([ids]))[0, -1].argmax().item())
    answer = generate(model, prompt, Sampling(max_new_tokens=30))
    assert answer == ids[3:]
    assert len(set(answer)) > 5  # a model that repeats one token would prove little


@pytest.mark.parametrize("k, p", [(0, 1.0), (3, 1.0), (0, 0.7), (10, 0.5), (500, 0.99)])
def test_filters_equal_transformers(k, p):
    logits = torch.randn(8, 50, generator=torch.Generator().manual_seed(0)) * 2
    theirs = LogitsProcessorList([TemperatureLogitsWarper(0.8)])
    if k:
        theirs.append(TopKLogitsWarper(k))
    if p < 1:
        theirs.append(TopPLogitsWarper(p))
    assert torch.equal(filter_logits(logits / 0.8, k, p), theirs(None, logits))


def test_top_p_by_hand():
    logits = torch.tensor([[0.1, 0.5, 0.15, 0.25]]).log()
    for p, kept in ((0.05, [1]), (0.6, [1, 3]), (0.8, [1, 2, 3]), (0.95, [0, 1, 2, 3])):
        finite = filter_logits(logits, top_p=p).isfinite()
        assert finite.nonzero()[:, 1].tolist() == kept
    exact = torch.zeros(1, 4)  # four times exactly 1/4: two reach 1/2
    assert filter_logits(exact, top_p=0.5).isfinite().sum() == 2


def test_draws_follow_the_tempered_distribution():
    p = torch.tensor([0.5, 0.3, 0.2])
    logits = p.log().expand(40_000, 3)
    generator = torch.Generator().manual_seed(0)
    for temperature in (0.5, 1.0, 2.0):
        drawn = choose(logits, Sampling(temperature=temperature), generator)
        share = torch.bincount(drawn, minlength=3) / len(drawn)
        wanted = p ** (1 / temperature) / (p ** (1 / temperature)).sum()
        assert (share - wanted).abs().max() < 0.01  # 4 standard errors
    assert set(choose(logits, Sampling()).tolist()) == {0}
    top_two = choose(logits, Sampling(temperature=5.0, top_k=2), generator)
    assert set(top_two.tolist()) == {0, 1}


def test_the_seed_decides(model):
    def draw(seed):
        sampling = Sampling(max_new_tokens=20, temperature=1.0, seed=seed)
        return generate(model, [1, 2], sampling)

    torch.manual_seed(7)
    state = torch.get_rng_state()
    assert draw(3) == draw(3) != draw(4)
    assert torch.equal(torch.get_rng_state(), state)  # the global generator is not used


def test_stream_yields_before_it_has_finished():
    script = Script(b"abcdef")
    first = list(itertools.islice(stream(script, [0]), 2))
    assert (first, script.said) == (BYTES.encode("ab"), 2)


def test_stream_works_beside_training(model):
    """Nothing of inference mode leaks out between two tokens."""
    ids = stream(model, [1], Sampling(max_new_tokens=3))
    next(ids)
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    model(torch.tensor([[1, 2]])).sum().backward()
    next(ids)
    model.zero_grad()


def test_stop_ids_end_the_answer():
    stop = (BYTES.encode("d")[0],)
    ids = generate(Script(b"abcdef"), [0], Sampling(stop_ids=stop))
    assert ids == BYTES.encode("abc")


@pytest.mark.parametrize(
    "said, stop, pieces",
    [
        ("abc", (), ["a", "b", "c"]),
        ("ab\n\ncd", ("\n\n",), ["a", "b"]),
        ("ab\ncd", ("\n\n",), ["a", "b", "\nc", "d"]),
        ("aab!x", ("ab!",), ["a"]),
        ("xENENDz", ("END",), ["x", "EN"]),
        ("uvwxyz", ("wz", "vwxy"), ["u"]),
        ("abcd", ("cd", "bcd"), ["a"]),
        ("xbcd", ("cd", "bcd", "xbcy"), ["x"]),
        ("abEN", ("END",), ["a", "b", "EN"]),
        ("END", ("END",), []),
        ("é🙂!", (), ["é", "🙂", "!"]),
    ],
)
def test_text_stops_before_stop_strings(said, stop, pieces):
    script = Script(said.encode())
    sampling = Sampling(max_new_tokens=len(said.encode()), stop=stop)
    assert list(stream_text(script, BYTES, "prompt", sampling)) == pieces


def test_stopping_saves_the_rest_of_the_work():
    script = Script(b"ab.cdef")
    assert complete(script, BYTES, "p", Sampling(max_new_tokens=7, stop=(".",))) == "ab"
    assert script.said == 3


def test_broken_characters_are_shown_as_such():
    script = Script("aé".encode()[:2] + b"b\xff\xc3")
    text = complete(script, BYTES, "p", Sampling(max_new_tokens=5))
    assert text == "a\ufffdb\ufffd\ufffd"


def test_complete_is_the_decoded_answer(model):
    sampling = Sampling(max_new_tokens=40, temperature=1.0)
    ids = generate(model, BYTES.encode("prompt"), sampling)
    assert complete(model, BYTES, "prompt", sampling) == BYTES.decode(ids)


def test_batch_equals_one_by_one(model):
    prompts = [[1, 2, 3], [4], [7, 8, 9], [200], [4, 4, 4, 4]]
    sampling = Sampling(max_new_tokens=12)
    alone = [generate(model, prompt, sampling) for prompt in prompts]
    assert generate_batch(model, prompts, sampling) == alone
    assert len({tuple(ids) for ids in alone}) == len(prompts)
    stopping = dataclasses.replace(sampling, stop_ids=(alone[0][4], alone[2][7]))
    stopped = [generate(model, prompt, stopping) for prompt in prompts]
    assert generate_batch(model, prompts, stopping) == stopped
    assert len(stopped[0]) <= 4
    assert generate_batch(model, [], sampling) == []
    endless = [
        generate(model, prompt) for prompt in prompts
    ]  # until the context is full
    assert [len(ids) for ids in endless] == [45, 47, 45, 47, 44]
    assert generate_batch(model, prompts) == endless


def test_batch_shares_passes_and_rows_leave(model):
    """One pass a step for all prompts; rows that have ended cost nothing more."""
    sizes = []
    handle = model.register_forward_hook(
        lambda _, args, __: sizes.append(args[0].shape)
    )
    ids = generate(model, [4], Sampling(max_new_tokens=3))
    sizes.clear()
    sampling = Sampling(max_new_tokens=6, stop_ids=(ids[2],))
    results = generate_batch(model, [[1, 2, 3], [4], [200, 7]], sampling)
    handle.remove()
    n_steps = [min(len(row) + 1, 6) for row in results]  # the last one says stop
    assert len(set(n_steps)) == 3 and results[1] == ids[:2]
    assert sizes[0] == (3, 3)
    for step, shape in enumerate(sizes[1:], 1):
        assert shape == (sum(n > step for n in n_steps), 1)
    assert len(sizes) == max(n_steps)


def test_prompt_errors_say_what_to_do(model):
    with pytest.raises(ValueError, match="empty prompt: give at least one token"):
        generate(model, [])
    with pytest.raises(ValueError, match="empty prompt"):
        complete(model, BYTES, "")
    with pytest.raises(ValueError, match="empty prompt"):
        generate_batch(model, [[1], []])
    with pytest.raises(ValueError, match="text, not ids: encode it"):
        generate(model, "text")
    for wrong in (256, -1):
        with pytest.raises(ValueError, match=r"vocabulary 0\.\.255"):
            generate(model, [1, wrong])
    with pytest.raises(ValueError, match="room for 8 in the context of 48"):
        generate(model, [1] * 40, Sampling(max_new_tokens=9))
    with pytest.raises(ValueError, match="room for 0 in the context of 48"):
        generate(model, [1] * 48)
    assert len(generate(model, [1] * 47)) == 1
    assert len(generate(model, [1] * 40, Sampling(max_new_tokens=8))) == 8
    assert len(generate(model, [1] * 40)) == 8  # no limit: until the context is full
    with pytest.raises(ValueError, match="257 tokens, the model 256"):
        complete(model, Tokenizer([(1, 2)]), "text")


@pytest.mark.parametrize(
    "field, value",
    [
        ("max_new_tokens", -1),
        ("temperature", -0.1),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("stop", "END"),
        ("stop", ("",)),
        ("stop", (b"a",)),
        ("stop_ids", 5),
        ("stop_ids", ("a",)),
        ("max_new_tokens", 2.5),
        ("temperature", "1"),
    ],
)
def test_sampling_errors_name_the_field(field, value):
    with pytest.raises(ValueError, match=f"Sampling.{field} = .* must be"):
        Sampling(**{field: value})
