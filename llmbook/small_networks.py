"""Networks for the trial of ch-small-samples; tasks and methods: `small_samples`."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.feature_extraction.text import TfidfVectorizer
from torch import Tensor, nn

from llmbook.bert_gpt import Config, Transformer, config_from_hf, weights_from_hf
from llmbook.small_samples import Features, Method, Task, column, minilm, words

__all__ = [
    "IMAGES",
    "TEXT",
    "Perceptron",
    "PictureNet",
    "TextNet",
    "fine_tuned",
    "from_scratch",
    "network",
    "perceptron",
    "pictures",
    "predict",
]

Build = Callable[
    [Task, np.ndarray, np.ndarray], tuple[Any, Sequence[Tensor], Sequence[Tensor]]
]


def network(
    build: Build, passes: float, low: int, high: int, head_lr: float = 1, B: int = 16
) -> Method:
    """Turn a torch model into a method; a configuration is (lr, length).

    Args:
        build: returns a model with ``body`` and ``head``, and the inputs of the
            training and the test rows, each a list of tensors.
        passes: through the sample, for a run of length 1.
        low: fewest steps of such a run, whatever `passes` says.
        high: most steps of such a run.
        head_lr: learning rate of the head, in units of the body's.
        B: examples in a batch, drawn with replacement.

    A longer run passes through the shorter ones of its learning rate, so that all
    lengths are answered by one run. AdamW, constant learning rate.
    """

    def answers(
        task: Task,
        train: np.ndarray,
        where: np.ndarray,
        seed: int,
        configs: Sequence[Any],
    ) -> np.ndarray:
        y, found = torch.tensor(task["y"][train]), {}
        base = int(np.clip(passes * len(train) / B, low, high))
        for lr in dict.fromkeys(lr for lr, _ in configs):
            torch.manual_seed(seed)
            model, inputs, asked = build(task, train, where)
            body = [p for p in model.body.parameters() if p.requires_grad]
            head = list(model.head.parameters())
            groups = [{"params": body}, {"params": head, "lr": lr * head_lr}]
            optimizer = torch.optim.AdamW(groups, lr, fused=True)
            ends = {base * k: (lr, k) for rate, k in configs if rate == lr}
            for step in range(1, max(ends) + 1):
                i = torch.randint(len(train), (B,))
                logits = model.train()(*(x[i] for x in inputs))
                optimizer.zero_grad()
                F.cross_entropy(logits, y[i]).backward()
                optimizer.step()
                if step in ends:
                    found[ends[step]] = predict(model.eval(), asked)
        return np.array([found[c] for c in configs])

    return answers


def predict(model: nn.Module, asked: Sequence[Tensor], B: int = 64) -> np.ndarray:
    """Return the most probable class of every row, (n,) integers."""
    with torch.no_grad():
        parts = zip(*(x.split(B) for x in asked))
        return torch.cat([model(*part).argmax(1) for part in parts]).numpy()


# --- text -----------------------------------------------------------------------------


class TextNet(nn.Module):
    """A Transformer, the mean of its outputs, a linear head."""

    def __init__(self, body: Transformer, n_classes: int) -> None:
        super().__init__()
        self.body = body
        self.head = nn.Linear(body.config.d_model, n_classes)

    def pooled(self, ids: Tensor, real: Tensor) -> Tensor:
        """Tokens (B, T), true where real (B, T) -> means (B, D)."""
        longest = int(real.sum(1).max())
        ids, real = ids[:, :longest], real[:, :longest]
        x = self.body(ids, real).hidden  # (B, T, D)
        weight = real[..., None].to(x.dtype)
        return (x * weight).sum(1) / weight.sum(1)

    def forward(self, ids: Tensor, real: Tensor) -> Tensor:
        """Tokens (B, T), true where real (B, T) -> logits (B, classes)."""
        return self.head(self.pooled(ids, real))


def _padded(lists: Sequence[Sequence[int]]) -> list[Tensor]:
    rows = [torch.tensor(row) for row in lists]
    real = [torch.ones(len(row), dtype=torch.bool) for row in rows]
    return [nn.utils.rnn.pad_sequence(x, batch_first=True) for x in (rows, real)]


def from_scratch(task: Task, train: np.ndarray, where: np.ndarray) -> tuple:
    """Build a Transformer, two layers of width 64 over the sample's words."""
    split = TfidfVectorizer().build_analyzer()
    texts = [split(text) for text in task["texts"]]
    known = sorted({word for i in train for word in texts[i]})
    number = {word: k for k, word in enumerate(known, start=1)}  # 0: unknown

    def tokens(rows: np.ndarray) -> list[Tensor]:
        return _padded([[number.get(w, 0) for w in texts[i]] or [0] for i in rows])

    config = Config(
        vocab_size=len(known) + 1,
        max_len=64,
        n_layers=2,
        n_heads=4,
        d_model=64,
        d_ff=128,
        dropout=0.2,
        pooler=False,
        n_token_types=0,
    )
    model = TextNet(Transformer(config), task["y"].max() + 1)
    return model, tokens(train), tokens(where)


def fine_tuned(task: Task, train: np.ndarray, where: np.ndarray) -> tuple:
    """Build MiniLM with a new head; its table of words stays as it is."""
    config = replace(config_from_hf(minilm().config), pooler=False)
    body = Transformer(config)
    body.load_state_dict(weights_from_hf(minilm().weights), strict=False)
    body.token.requires_grad_(False)

    def tokens(rows: np.ndarray) -> list[Tensor]:
        found = minilm().tokenizer.encode_batch(list(task["texts"][rows]))
        return _padded([encoding.ids[:32] for encoding in found])

    model = TextNet(body, task["y"].max() + 1)
    return model, tokens(train), tokens(where)


# --- any features, and pictures -------------------------------------------------------


class Perceptron(nn.Module):
    """One hidden layer of 64 units."""

    def __init__(self, n_inputs: int, n_classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(n_inputs, 64), nn.ReLU(), nn.Dropout(0.3))
        self.head = nn.Linear(64, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, features) -> logits (B, classes)."""
        return self.head(self.body(x))


def perceptron(features: Features) -> Build:
    """Build a `Perceptron` on these features."""

    def build(task: Task, train: np.ndarray, where: np.ndarray) -> tuple:
        parts = features(task, train, where)
        dense = [x.toarray() if hasattr(x, "toarray") else x for x in parts]
        a, b = (torch.tensor(x, dtype=torch.float32) for x in dense)
        return Perceptron(a.shape[1], task["y"].max() + 1), [a], [b]

    return build


class PictureNet(nn.Module):
    """Two layers of 3 x 3 filters and a linear head, for 8 x 8 pixels.

    With ``shift`` each training batch is moved by up to one pixel.
    """

    def __init__(self, shift: bool) -> None:
        super().__init__()
        self.shift = shift
        self.body = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.3),
        )
        self.head = nn.Linear(32 * 4 * 4, 10)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 64) -> logits (B, 10)."""
        x = x.view(-1, 1, 8, 8)
        if self.training and self.shift:
            i, j = torch.randint(3, (2,)).tolist()
            x = F.pad(x, (1, 1, 1, 1))[:, :, i : i + 8, j : j + 8]
        return self.head(self.body(x))


def pictures(shift: bool) -> Build:
    """Build a `PictureNet` on the task's pixels."""

    def build(task: Task, train: np.ndarray, where: np.ndarray) -> tuple:
        rows = (task["pixels"][train], task["pixels"][where])
        a, b = (torch.tensor(x, dtype=torch.float32) for x in rows)
        return PictureNet(shift), [a], [b]

    return build


_RATES = [(1e-3, 1), (1e-3, 2), (3e-3, 1), (3e-3, 2)]  # (lr, length)
_SLOW = [(5e-5, 1), (5e-5, 2), (1e-4, 1), (1e-4, 2)]

TEXT: dict[str, tuple[Method, list]] = {
    "MLP": (network(perceptron(words), 15, 200, 800), _RATES),
    "Transformer": (network(from_scratch, 15, 60, 800), _RATES),
    "MiniLM + MLP": (network(perceptron(column("minilm")), 15, 200, 800), _RATES),
    "MiniLM fine-tuned": (network(fine_tuned, 1, 10, 25, head_lr=50), _SLOW),
}
IMAGES: dict[str, tuple[Method, list]] = {
    "MLP": (network(perceptron(column("pixels")), 15, 200, 400), _RATES),
    "CNN": (network(pictures(False), 15, 200, 400), _RATES),
    "CNN + shifts": (network(pictures(True), 15, 200, 400), _RATES),
}
