"""The data room: right bytes, clear refusals, an encoder equal to the real one."""

import csv
import hashlib
import inspect
import re
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from llmbook import data

ROOT = Path(__file__).resolve().parent.parent
SEPARATOR = "\n\n\n"

# --- The documentation corpus -------------------------------------------------------


@pytest.fixture(scope="module")
def corpus():
    """Both splits, read anew from the installed packages (no cache)."""
    return data._build_documentation()


@pytest.fixture
def cached(corpus, tmp_path, monkeypatch):
    """The corpus, in a cache folder that is not the reader's."""
    monkeypatch.setenv("LLMBOOK_CACHE", str(tmp_path))
    monkeypatch.setattr(data, "_build_documentation", lambda: corpus)
    return corpus


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A corpus of two made-up packages, with a cache folder of its own."""
    long = "This sentence is here to be long enough. " * 6
    packages = {"alpha": f"First of alpha. {long}", "beta": f"First of beta. {long}"}
    for name, text in packages.items():
        folder = tmp_path / "site" / name
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text(f'"""{text.strip()}"""\n', encoding="utf-8")
    sha = data._sha256
    texts = [text.strip() for text in packages.values()]
    joined = SEPARATOR.join(texts)
    monkeypatch.setenv("LLMBOOK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(
        data,
        "PINS",
        {n: data.Pin(n, "1.0", sha(t.encode())) for n, t in zip(packages, texts)},
    )
    monkeypatch.setattr(
        data, "SHA256", {"all": sha(joined.encode()), "prose": sha(joined.encode())}
    )
    monkeypatch.setattr(data, "_installed_version", lambda name: "1.0")
    monkeypatch.setattr(data, "_package_folder", lambda m: tmp_path / "site" / m)
    return tmp_path


def _never_built():
    raise AssertionError("the corpus was built although a good copy was cached")


def test_corpus_from_installed_packages_has_the_recorded_hashes(cached):
    for split, sha256 in data.SHA256.items():
        assert data._sha256(cached[split].encode("utf-8")) == sha256
    assert data.documentation() == cached["prose"]
    assert data.documentation("all") == cached["all"]


def test_corpus_documents_are_distinct_and_long(corpus):
    documents = corpus["all"].split(SEPARATOR)
    assert len(set(documents)) == len(documents) == 9125
    assert min(map(len, documents)) > data.MIN_CHARACTERS
    assert "\r" not in corpus["all"]
    paragraphs = re.split(r"\n{2,3}", corpus["prose"])
    assert len(set(paragraphs)) == len(paragraphs)
    assert not any(">>>" in p[:4] or "\n" in p for p in paragraphs)


def test_pins_are_those_of_the_requirements():
    required = dict(
        re.findall(
            r"^([\w-]+)==([\w.]+)", (ROOT / "requirements.txt").read_text(), re.M
        )
    )
    assert {name: pin.version for name, pin in data.PINS.items()} == {
        name: required[name] for name in data.PINS
    }
    assert required[data.MINILM_PACKAGE[0]] == data.MINILM_PACKAGE[1]


@pytest.mark.parametrize("call", [data.documentation, data.documentation_split])
def test_unknown_split_is_refused(call):
    with pytest.raises(ValueError, match=r"'proze'.*\['all', 'prose'\]"):
        call("proze")


def test_built_once_then_read_from_the_cache(tiny, monkeypatch):
    first = data.documentation("all")
    assert first.startswith("First of alpha.") and "First of beta." in first
    names = sorted(path.name for path in (tiny / "cache").iterdir())
    assert [n.split("-")[1] for n in names] == ["all", "prose"]  # no temporary files
    monkeypatch.setattr(data, "_build_documentation", _never_built)
    assert data.documentation("all") == data.documentation("prose") == first


@pytest.mark.parametrize("damage", [b"", b"cut off", None])
def test_corrupt_cache_is_rebuilt(tiny, damage):
    good = data.documentation("all")
    (cached,) = (tiny / "cache").glob("documentation-all-*.txt")
    cached.write_bytes(cached.read_bytes() + b"x" if damage is None else damage)
    assert data.documentation("all") == good
    assert data._sha256(cached.read_bytes()) == data.SHA256["all"]


def test_wrong_version_names_package_and_pin(tiny, monkeypatch):
    monkeypatch.setattr(data, "_installed_version", {"alpha": "1.0", "beta": "1.1"}.get)
    with pytest.raises(RuntimeError, match=r"found beta 1\.1: pip install beta==1\.0$"):
        data.documentation()
    monkeypatch.setattr(data, "_installed_version", {"alpha": "1.0"}.get)
    with pytest.raises(RuntimeError, match="found beta missing: pip install"):
        data.documentation()


def test_edited_package_is_named_with_the_way_to_mend_it(tiny):
    file = tiny / "site" / "beta" / "__init__.py"
    file.write_text(file.read_text(encoding="utf-8").replace("First", "Second"))
    with pytest.raises(RuntimeError, match=r"docstrings of beta 1\.0 differ") as caught:
        data.documentation()
    assert "pip install --force-reinstall --no-deps beta==1.0" in str(caught.value)
    assert not (tiny / "cache").exists()


def test_edited_rules_are_told_from_edited_packages(tiny, monkeypatch):
    monkeypatch.setattr(data, "_MIN_WORDS", 10_000)
    with pytest.raises(RuntimeError, match=r"'prose'.*rules in llmbook/data\.py"):
        data.documentation()


def test_installed_version_of_a_missing_package():
    assert data._installed_version("no-such-package-anywhere") is None
    assert data._installed_version("numpy") == np.__version__


def test_what_is_read_and_in_which_order(tmp_path):
    text = "{} " + "word " * 50 + "end."
    sources = {
        "b/x.py": f'"""{text.format("B")}"""\n',
        "b.py": (
            f'"""{text.format("module")}"""\n'
            f'class C:\n    """{text.format("class")}"""\n'
            f'    def f(self):\n        """{text.format("method")}"""\n'
            "if True:\n    try:\n        pass\n    except E:\n        def g():\n"
            f'            r"""{text.format("inner")}"""\n'
            'def short():\n    """Too short."""\n'
        ),
        "B.py": f'"""{text.format("upper")}"""\n',
        "tests/t.py": f'"""{text.format("test")}"""\n',
        "c/distutils/d.py": f'"""{text.format("distutils")}"""\n',
        "__config__.py": f'"""{text.format("config")}"""\n',
        "_version.py": f'"""{text.format("version")}"""\n',
    }
    for name, source in sources.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(source.replace("\n", "\r\n").encode())
    found = [document.split()[0] for document in data._docstrings(tmp_path)]
    assert found == ["upper", "module", "class", "method", "inner", "B"]


@pytest.mark.parametrize(
    "raw",
    [
        "One line.",
        "First.\n\n    Second.\n        indented\n    ",
        "\n    Starts below.\n\tTab.\n    ",
        "  Leading.\n  Same.\n\n",
    ],
)
def test_clean_agrees_with_cleandoc_where_pythons_agree(raw):
    assert data._clean(raw) == inspect.cleandoc(raw).rstrip()


def test_clean_does_not_depend_on_line_ends_or_form_feeds():
    raw = "Title.\n\n    Text.\n    \f\n\n\n    More.\n    "
    assert data._clean(raw) == "Title.\n\nText.\n\nMore."
    assert data._clean(raw.replace("\n", "\r\n")) == data._clean(raw)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The mean of the two values is returned.", True),
        ("Notes\n-----\nThe mean of the two values is returned.", True),
        ("The mean of the two\nvalues is returned.", True),
        ("The mean of the two\n    values is returned.", False),  # two indentations
        ("Too short a sentence.", False),
        ("the mean of the two values is returned.", False),  # no capital
        ("The mean of the two values is returned", False),  # no full stop
        (">>> The mean of the two values is returned.", False),
        ("- The mean of the two values is returned.", False),
        (".. note:: The mean of the two values is returned.", False),
        ("mean : The mean of the two values is returned.", False),
        ("The 1 2 3 4 5 6 7 8 9 10 + 11.", False),  # few plain words
    ],
)
def test_rules_of_prose(text, expected):
    (lines,) = data._paragraphs(text)
    assert data._is_prose(lines) is expected


def test_prose_is_joined_and_met_once():
    b = "See the other one here now."
    a = f"The mean of the\nfirst values  is returned.\n\nX = 3\n\n{b}"
    assert list(data._prose([a, b])) == [
        "The mean of the first values is returned.\n\nSee the other one here now."
    ]


def test_held_out_documents_are_whole_fixed_and_nested(cached):
    train, test = data.documentation_split()
    parts = train.split(SEPARATOR), test.split(SEPARATOR)
    everything = cached["prose"].split(SEPARATOR)
    assert sorted(parts[0] + parts[1]) == sorted(everything)
    assert 0.04 < len(parts[1]) / len(everything) < 0.06
    assert (train, test) == data.documentation_split("prose", 0.05)
    assert set(parts[1]) < set(
        data.documentation_split(held_out=0.1)[1].split(SEPARATOR)
    )


def test_held_out_overlap_is_the_documented_one(cached):
    def runs(text):
        for document in text.split(SEPARATOR):
            words = document.split()
            yield from zip(*(words[i:] for i in range(8)))

    train, test = data.documentation_split()
    known = set(runs(train))
    assert round(np.mean([run in known for run in runs(test)]), 2) == 0.09
    assert "9 % also occur" in data.documentation_split.__doc__


@pytest.mark.parametrize("share", [0, 1, -0.1, 5])
def test_held_out_share_must_be_a_share(share):
    with pytest.raises(ValueError, match="held_out must lie between 0 and 1"):
        data.documentation_split(held_out=share)


# --- MiniLM -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def minilm():
    return data.minilm()


@pytest.fixture
def elsewhere(monkeypatch):
    """No package, no folder, no hub: each test adds what it needs."""
    monkeypatch.setattr(data, "MINILM_PACKAGE", ("absent", "0.1.0", "no_such_module"))
    monkeypatch.delenv("LLMBOOK_MINILM", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return monkeypatch


def test_minilm_is_the_real_one(minilm):
    assert sum(w.size for w in minilm.weights.values()) == 22_713_216
    assert {w.dtype for w in minilm.weights.values()} == {np.dtype(np.float32)}
    assert minilm.weights["embeddings.word_embeddings.weight"].shape == (30522, 384)
    assert minilm.config["num_hidden_layers"] == 6
    assert repr(minilm) == "MiniLM(103 tensors, 22,713,216 parameters)"
    content = (minilm.path / "model.safetensors").read_bytes()
    assert hashlib.sha256(content).hexdigest() == data.MINILM_SHA256


def test_tokenizer_neither_pads_nor_exceeds_256(minilm):
    short, long = minilm.tokenizer.encode_batch(["a card", "word " * 400])
    assert short.tokens == ["[CLS]", "a", "card", "[SEP]"]
    assert len(long.ids) == 256


def test_weights_belong_to_the_caller(minilm):
    other = data.minilm()
    name = "pooler.dense.weight"
    other.weights[name][:] = 0
    assert np.any(minilm.weights[name])


def test_encode_equals_transformers(minilm):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    texts = ["a card", "My card was stolen in Zürich!", "中文 text", "", "word " * 400]
    transformers.utils.logging.disable_progress_bar()
    model = transformers.AutoModel.from_pretrained(minilm.path).eval()
    expected = []
    with torch.no_grad():
        for text in texts:
            ids = torch.tensor([minilm.tokenizer.encode(text).ids])
            pooled = model(ids).last_hidden_state.mean(dim=1)
            expected.append(torch.nn.functional.normalize(pooled).numpy())
    ours = minilm.encode(texts)
    assert ours.dtype == np.float32 and ours.shape == (5, 384)
    np.testing.assert_allclose(ours, np.concatenate(expected), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-5)


def test_encode_keeps_the_order_whatever_the_batches(minilm):
    texts = ["one", "two words", "three", "four more words here", "five six"]
    whole = minilm.encode(texts)
    single = np.concatenate([minilm.encode([text]) for text in texts])
    np.testing.assert_allclose(whole, single, atol=1e-5)
    np.testing.assert_allclose(whole, minilm.encode(texts, batch_size=1), atol=1e-5)
    assert minilm.encode([]).shape == (0, 384)


def test_encode_uses_replaced_weights(minilm):
    name = "encoder.layer.5.output.dense.weight"
    same = minilm.encode(["a card"], {name: minilm.weights[name].copy()})
    np.testing.assert_array_equal(same, minilm.encode(["a card"]))
    changed = minilm.encode(["a card"], {name: np.zeros_like(minilm.weights[name])})
    assert (changed @ same.T).item() < 0.99
    double = minilm.encode(["a card"], {name: minilm.weights[name].astype(np.float64)})
    assert double.dtype == np.float32


@pytest.mark.parametrize(
    ("texts", "weights", "error", "message"),
    [
        ("a card", None, TypeError, r"\[text\]"),
        (["a card"], {"no.such": np.ones(2)}, KeyError, "no.such"),
        (["a card"], {"pooler.dense.weight": np.ones(2)}, ValueError, r"\(384, 384\)"),
    ],
)
def test_encode_refuses(minilm, texts, weights, error, message):
    with pytest.raises(error, match=message):
        minilm.encode(texts, weights)


def test_missing_model_error_names_all_three_ways(elsewhere):
    with pytest.raises(FileNotFoundError) as caught:
        data.minilm()
    for way in ("pip install absent==0.1.0", "LLMBOOK_MINILM", "HF_HUB_OFFLINE=0"):
        assert way in str(caught.value)


def test_model_with_another_hash_is_not_taken(elsewhere, tmp_path, minilm):
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).symlink_to(minilm.path / name)
    elsewhere.setenv("LLMBOOK_MINILM", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"has no model\.safetensors"):
        data.minilm()
    (tmp_path / "model.safetensors").write_bytes(b"not the weights")
    found = hashlib.sha256(b"not the weights").hexdigest()
    with pytest.raises(FileNotFoundError, match=f"has sha256 {found}, expected 53aa"):
        data.minilm()


def test_model_from_a_local_folder(elsewhere, tmp_path, minilm):
    for name in data._MINILM_FILES:
        (tmp_path / name).symlink_to(minilm.path / name)
    elsewhere.setenv("LLMBOOK_MINILM", str(tmp_path))
    loaded = data.minilm()
    assert loaded.path == tmp_path
    np.testing.assert_array_equal(
        loaded.weights["pooler.dense.weight"], minilm.weights["pooler.dense.weight"]
    )


def test_hub_is_asked_only_when_online(elsewhere, minilm):
    hub = pytest.importorskip("huggingface_hub")
    asked = []

    def snapshot(repository, **_):
        asked.append(repository)
        return str(minilm.path)

    elsewhere.setattr(hub, "snapshot_download", snapshot)
    with pytest.raises(FileNotFoundError, match="the hub was not asked"):
        data.minilm()
    assert asked == []
    elsewhere.setenv("HF_HUB_OFFLINE", "0")
    assert data.minilm().path == minilm.path
    assert asked == ["sentence-transformers/all-MiniLM-L6-v2"]


def test_unreachable_hub_is_reported(elsewhere):
    hub = pytest.importorskip("huggingface_hub")

    def fail(*_, **__):
        raise ConnectionError("no route")

    elsewhere.setattr(hub, "snapshot_download", fail)
    elsewhere.setenv("HF_HUB_OFFLINE", "0")
    with pytest.raises(FileNotFoundError, match="did not answer: ConnectionError"):
        data.minilm()


def test_no_torch_no_warnings_no_output():
    code = (
        "import sys; from llmbook import data\n"
        "heavy = {'torch', 'transformers', 'sklearn', 'tokenizers'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "data.minilm().encode(['a card']); data.intents()\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# --- Intents ------------------------------------------------------------------------


def _near_copies(parts, threshold=0.6):
    """Pairs of texts from different parts whose word sets overlap too much."""
    words = {
        part: [(text, set(re.findall(r"[a-z0-9']+", text.lower()))) for text in texts]
        for part, texts in parts.items()
    }
    return [
        (a, b)
        for one, two in combinations(words, 2)
        for a, in_a in words[one]
        for b, in_b in words[two]
        if len(in_a & in_b) > threshold * len(in_a | in_b)
    ]


def _parts(loaded):
    return {
        "train": loaded.train_texts,
        "test_easy": loaded.test_easy_texts,
        "test_hard": loaded.test_hard_texts,
    }


def test_intents_are_balanced_and_labelled():
    loaded = data.intents()
    assert len(loaded.names) == 10 and list(loaded.names) == sorted(loaded.names)
    for part, per_intent in (("train", 60), ("test_easy", 10), ("test_hard", 12)):
        labels = getattr(loaded, f"{part}_labels")
        assert labels.dtype == np.int64
        assert len(getattr(loaded, f"{part}_texts")) == len(labels)
        np.testing.assert_array_equal(np.bincount(labels), [per_intent] * 10)
    cells = list(zip(loaded.test_hard_labels.tolist(), loaded.test_hard_kinds))
    kinds = ("indirect", "vocabulary", "distractor")
    assert {cells.count((i, k)) for i in range(10) for k in kinds} == {4}


def test_intents_texts_are_clean_and_distinct():
    texts = [text for part in _parts(data.intents()).values() for text in part]
    assert all(text == " ".join(text.split()) and text for text in texts)
    normal = [" ".join(re.findall(r"\w+", text.lower())) for text in texts]
    assert len(set(normal)) == len(normal) == 820


def test_intents_have_no_near_copies_across_splits():
    parts = _parts(data.intents())
    assert _near_copies(parts) == []
    text = parts["train"][17]
    planted = {**parts, "test_hard": [*parts["test_hard"], text + " please"]}
    assert _near_copies(planted) == [(text, text + " please")]


def test_easy_split_is_the_documented_draw():
    loaded = data.intents()
    for label in range(10):
        train, easy = (
            [t for t, y in zip(texts, labels) if y == label]
            for texts, labels in (
                (loaded.train_texts, loaded.train_labels),
                (loaded.test_easy_texts, loaded.test_easy_labels),
            )
        )
        by_hash = sorted(
            train + easy, key=lambda text: hashlib.sha256(text.encode()).hexdigest()
        )
        assert sorted(by_hash[:10]) == sorted(easy)


def test_readme_states_the_files_as_they_are():
    readme = (data.ASSETS / "README.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| `(intents/\w+\.csv)` \| ([\w, ]+) \| (\d+) \| \d+ \| ([\d.]+) "
        r"\| `(\w+)` \|$",
        readme,
        re.M,
    )
    assert {row[0] for row in rows} == {
        f"intents/{path.name}" for path in (data.ASSETS / "intents").iterdir()
    }
    for name, columns, count, mean_words, sha256 in rows:
        content = (data.ASSETS / name).read_bytes().replace(b"\r\n", b"\n")
        assert hashlib.sha256(content).hexdigest() == sha256, name
        table = list(csv.DictReader(content.decode("utf-8").splitlines()))
        assert (", ".join(table[0]), str(len(table))) == (columns, count)
        words = np.mean([len(row["text"].split()) for row in table])
        assert f"{words:.1f}" == mean_words
    for name in data.intents().names:
        assert f"| `{name}` |" in readme


def test_labels_can_be_learnt_and_hard_is_harder():
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import LinearSVC

    loaded = data.intents()
    model = make_pipeline(TfidfVectorizer(sublinear_tf=True), LinearSVC())
    model.fit(loaded.train_texts, loaded.train_labels)
    easy = model.score(loaded.test_easy_texts, loaded.test_easy_labels)
    hard = model.score(loaded.test_hard_texts, loaded.test_hard_labels)
    assert 0.2 < hard < easy < 0.95  # above chance (0.1), and room to improve


def test_missing_intents_say_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "ASSETS", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"train\.csv is missing: clone"):
        data.intents()


# --- Photographs --------------------------------------------------------------------


@pytest.mark.parametrize("name", ["china", "flower"])
def test_photo_is_an_array_between_0_and_1(name):
    image = data.photo(name)
    assert image.shape == (427, 640, 3) and image.dtype == np.float32
    assert 0 <= image.min() < 0.05 and 0.95 < image.max() <= 1


def test_unknown_photo_is_refused():
    with pytest.raises(ValueError, match="'cat': choose from"):
        data.photo("cat")
