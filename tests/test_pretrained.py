"""The shipped decoder is the one on record, and damaged files are refused."""

import hashlib
import json
import shutil

import pytest
import torch

from llmbook import data, pretrained
from llmbook.generate import Sampling, complete
from llmbook.train import Data, bits_per_byte

RECORD = json.loads((data.ASSETS / "results" / "pretraining.json").read_text())


@pytest.fixture(scope="module")
def loaded():
    return pretrained.load()


def test_files_and_record_agree(loaded):
    model, tokenizer = loaded
    assert RECORD["sha256"] == pretrained.SHA256
    assert model.n_params == RECORD["n_params"]
    assert model.config.vocab_size == tokenizer.vocab_size
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    size = (pretrained.FOLDER / "decoder.safetensors").stat().st_size
    assert size == RECORD["file_bytes"] <= 8_000_000
    assert list(tokenizer.special) == list(pretrained.SPECIAL_TOKENS)


def test_card_names_what_is_shipped():
    card = (pretrained.FOLDER / "README.md").read_text()
    for digest in pretrained.SHA256.values():
        assert digest in card
    assert f"**{RECORD['bits_per_byte_full']:.3f}**" in card
    assert RECORD["training_text_sha256"] in card


def test_texts_are_those_of_the_record():
    text, held_out = pretrained.texts()
    assert hashlib.sha256(text.encode()).hexdigest() == RECORD["training_text_sha256"]
    end = pretrained.END_OF_TEXT
    assert text.startswith(end) and text.endswith(end)
    held = held_out.split(end)[1:-1]
    few = pretrained.texts(keep_every=16)[1].split(end)[1:-1]
    assert few == held[::16]
    seen: set[str] = set()
    for document in text.split(end):
        paragraphs = {p for p in document.split("\n\n") if len(p) > 40}
        assert seen.isdisjoint(paragraphs)
        seen |= paragraphs
    assert not any(s in text for s in pretrained.SPECIAL_TOKENS[1:])


def test_bits_per_byte_on_record_come_again(loaded):
    model, tokenizer = loaded
    ids = Data.from_texts("", pretrained.texts(keep_every=16)[1], tokenizer)
    bits = bits_per_byte(model, ids.valid, ids.token_bytes, model.config.max_len)
    assert bits == pytest.approx(RECORD["bits_per_byte_sample"], abs=2e-3)


def test_it_beats_every_baseline_on_record():
    assert RECORD["bits_per_byte_full"] < min(RECORD["baselines"].values())


def test_it_writes(loaded):
    model, tokenizer = loaded
    text = complete(model, tokenizer, "Return the", Sampling(max_new_tokens=20))
    assert len(text.split()) > 3


def test_missing_and_damaged_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="git checkout"):
        pretrained.load(tmp_path)
    for name in pretrained.SHA256:
        shutil.copy(pretrained.FOLDER / name, tmp_path)
    pretrained.load(tmp_path)
    path = tmp_path / "decoder.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="restore it"):
        pretrained.load(tmp_path)
