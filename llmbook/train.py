"""Train a decoder on one long array of tokens, and resume as if never stopped."""

import dataclasses
import hashlib
import math
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from llmbook.files import replacing
from llmbook.model import Decoder
from llmbook.tokenizer import Tokenizer

__all__ = [
    "Data",
    "History",
    "TrainConfig",
    "bits_per_byte",
    "get_batch",
    "learning_rate",
    "train",
]

_FORMAT = "llmbook training 1"


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a run, next to the model and the data.

    Raises ValueError when a field is out of range.
    To be built in ch-pretraining-run.
    """

    n_steps: int = 1000  # updates of the weights
    batch_size: int = 16  # sequences per update
    accumulate: int = 1  # pieces a batch is cut into when memory is short
    seq_len: int = 64  # tokens per sequence
    lr: float = 3e-3  # learning rate at the end of the warmup
    warmup: int = 50  # steps from 0 to lr, linearly
    final_lr: float = 0.1  # learning rate at the end, as a fraction of lr
    weight_decay: float = 0.1  # of matrices; gains of norms do not decay
    betas: tuple[float, float] = (0.9, 0.95)  # AdamW's memory of gradient and square
    clip: float = 1.0  # largest norm of the gradient
    eval_every: int = 100  # steps between measurements on held-out text
    eval_tokens: int = 16_384  # held-out tokens per measurement; 0 takes all
    checkpoint_every: int = 500  # steps between checkpoints, if there is a path
    seed: int = 0  # of the order of the data

    def __post_init__(self) -> None:
        may_be_zero = ("warmup", "final_lr", "weight_decay", "eval_tokens", "seed")
        for name, value in vars(self).items():
            low = min(value) if name == "betas" else value
            if low < 0 or (low == 0 and name not in may_be_zero):
                raise ValueError(f"TrainConfig.{name} must be positive, not {value!r}")
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"batch_size {self.batch_size} does not split into {self.accumulate} "
                "equal pieces: let accumulate divide batch_size"
            )


@dataclass(frozen=True)
class Data:
    """Token ids to learn from and to measure on, and how many bytes each stands for.

    To be built in ch-pretraining-run.
    """

    train: np.ndarray  # (N,) ids
    valid: np.ndarray  # (M,) ids of text the model never trains on
    token_bytes: np.ndarray  # (V,) UTF-8 bytes of each id, 0 for special tokens
    tokenizer: str = ""  # fingerprint of the tokenizer that made the ids

    @classmethod
    def from_texts(cls, train: str, valid: str, tokenizer: Tokenizer) -> "Data":
        """Encode a text to learn from and a held-out text, ids as int32.

        Special tokens written out in the texts become their id. The tokenizer must
        be trained on ``train`` alone, else the held-out text is not new to it.
        """
        sizes = np.array([len(token) for token in tokenizer.tokens])
        sizes[list(tokenizer.special.values())] = 0
        ids, held_out = (
            np.array(tokenizer.encode(text, special=True), dtype=np.int32)
            for text in (train, valid)
        )
        return cls(ids, held_out, sizes, tokenizer.fingerprint)

    @property
    def fingerprint(self) -> str:
        """Hash of ids and tokenizer: a run resumes only on the same data."""
        digest = hashlib.sha256(self.tokenizer.encode())
        for ids in (self.train, self.valid):
            digest.update(np.ascontiguousarray(ids, dtype=np.int64).tobytes())
        return digest.hexdigest()


@dataclass
class History:
    """What a run measured. Two runs with the same inputs have equal histories.

    To be built in ch-pretraining-run.
    """

    loss: list[float] = field(default_factory=list)  # nats per token, one per step
    grad_norm: list[float] = field(default_factory=list)  # before clipping
    lr: list[float] = field(default_factory=list)  # used at each step
    eval_steps: list[int] = field(default_factory=list)  # updates done when measured
    bits_per_byte: list[float] = field(default_factory=list)  # held-out, per eval_steps


def get_batch(
    tokens: np.ndarray, batch_size: int, seq_len: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Cut B sequences of T tokens out of an array (N,), each start equally likely.

    Returns inputs (B, T) and targets (B, T), one token ahead, int64. Raises
    ValueError when N ≤ T: a sequence needs a token after it.
    To be built in ch-pretraining-run.
    """
    if len(tokens) <= seq_len:
        raise ValueError(
            f"{len(tokens)} tokens are too few for a sequence of {seq_len} and the one "
            "after it: bring more text or lower seq_len"
        )
    starts = rng.integers(0, len(tokens) - seq_len, size=batch_size)
    rows = np.stack([tokens[s : s + seq_len + 1] for s in starts])  # (B, T + 1)
    chunk = torch.from_numpy(rows.astype(np.int64))
    return chunk[:, :-1], chunk[:, 1:]


def learning_rate(step: int, config: TrainConfig) -> float:
    """Linear warmup, then half a cosine from ``lr`` down to ``final_lr`` · ``lr``.

    ``step`` is the update to come, 0..n_steps - 1; ``lr`` is reached at ``warmup``.

    Source: Loshchilov and Hutter (2017) for the cosine.
    To be built in ch-pretraining-run.
    """
    if step < config.warmup:
        return config.lr * (step + 1) / (config.warmup + 1)
    done = (step - config.warmup) / (config.n_steps - config.warmup)
    low = config.final_lr
    return config.lr * (low + (1 - low) * 0.5 * (1 + math.cos(math.pi * done)))


def bits_per_byte(
    model: Decoder,
    tokens: np.ndarray,
    token_bytes: np.ndarray,
    seq_len: int,
    batch_size: int = 16,
) -> float:
    """Cross-entropy in bits per byte of text: comparable across tokenizers.

    ``tokens`` (M,) is cut into windows of ``seq_len`` that share no target; every
    token but the first is predicted once, from what precedes it in its window, so
    the result depends on ``seq_len``. ``token_bytes`` (V,) gives the bytes of each
    id; special tokens cost bits and add no bytes. A uniform guess over bytes scores
    8, lower is better. Raises ValueError when there is nothing to predict.
    To be built in ch-language-models-as-probability.
    """
    n_bytes = int(token_bytes[tokens[1:]].sum())
    if n_bytes == 0:
        raise ValueError("no text to measure on: bring at least two held-out tokens")
    device = model.embed.weight.device
    ids = torch.from_numpy(np.asarray(tokens, dtype=np.int64)).to(device)
    # The last window is filled up with targets that cross-entropy skips.
    missing = -(len(ids) - 1) % seq_len
    x = F.pad(ids[:-1], (0, missing)).view(-1, seq_len)  # (windows, T)
    y = F.pad(ids[1:], (0, missing), value=-100).view(-1, seq_len)  # (windows, T)
    nats = 0.0
    with torch.inference_mode():
        for xs, ys in zip(x.split(batch_size), y.split(batch_size), strict=True):
            nats += _cross_entropy(model(xs), ys, "sum").item()
    return nats / math.log(2) / n_bytes


def _cross_entropy(logits: Tensor, targets: Tensor, reduction: str) -> Tensor:
    """Nats; (B, T, V) and (B, T) flattened to rows (B · T)."""
    return F.cross_entropy(
        logits.float().flatten(0, 1), targets.flatten(), reduction=reduction
    )


def train(
    model: Decoder,
    data: Data,
    config: TrainConfig,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    progress: bool = False,
) -> History:
    """Train in place with AdamW, warmup and cosine, clipping and accumulation.

    The batch of a step depends on ``config.seed`` and the step alone, so a run that
    was killed and resumed is the run that was not, to the last bit on one CPU thread.

    Args:
        model: the decoder, trained where it is (CPU or GPU).
        data: ids to train on and to measure on.
        config: the run.
        checkpoint: file for weights, optimizer, step and history, replaced whole
            every ``checkpoint_every`` steps and at the end; None writes nothing.
        resume: continue from ``checkpoint`` if it exists; start afresh if not.
        progress: print one line per measurement.

    Returns:
        Loss per step and bits per byte, measured before the first step, every
        ``eval_every`` steps and at the end.

    Raises:
        ValueError: when model, data and configuration do not fit together, or the
            checkpoint is damaged or of another run.
        FileExistsError: when ``checkpoint`` exists and ``resume`` is off.
        FileNotFoundError: when its folder does not exist.
        FloatingPointError: when the loss is no longer finite; the last checkpoint
            stays as it was.

    To be built in ch-pretraining-run.
    """
    _check_fit(model, data, config)
    identity = _identity(model, data, config)
    optimizer = _adamw(model, config)
    history, step = History(), 0
    if checkpoint is not None and Path(checkpoint).exists():
        if not resume:
            raise FileExistsError(
                f"{checkpoint} exists and would be overwritten: pass resume=True to "
                "continue that run, or another path"
            )
        state = _restore(Path(checkpoint), identity)
        step, history = state["step"], History(**state["history"])
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    if checkpoint is not None and not Path(checkpoint).parent.is_dir():
        raise FileNotFoundError(f"no folder for {checkpoint}: create it first")
    device = model.embed.weight.device
    held_out = data.valid[: config.eval_tokens or None]
    rows = config.batch_size // config.accumulate  # per pass

    def measure() -> None:
        bits = bits_per_byte(model, held_out, data.token_bytes, config.seq_len, rows)
        history.eval_steps.append(step)
        history.bits_per_byte.append(bits)
        if progress:
            loss = f"loss {history.loss[-1]:.3f} nats per token, " if step else ""
            done = f"step {step:>6}/{config.n_steps}"
            print(f"{done}: {loss}held out {bits:.3f} bits per byte", flush=True)

    def save(path: str | Path) -> None:
        state = {
            "format": _FORMAT,
            "step": step,
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "history": dataclasses.asdict(history),
            **identity,
        }
        with replacing(path) as temporary:
            torch.save(state, temporary)

    if step == 0:
        measure()
    while step < config.n_steps:
        rng = np.random.default_rng((config.seed, step))
        x, y = get_batch(data.train, config.batch_size, config.seq_len, rng)
        loss = 0.0
        for xs, ys in zip(x.split(rows), y.split(rows), strict=True):
            logits = model(xs.to(device))  # (rows, T, V)
            part = _cross_entropy(logits, ys.to(device), "mean") / config.accumulate
            part.backward()
            loss += part.item()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip).item()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise FloatingPointError(
                f"step {step}: loss {loss}, gradient norm {norm}: lower lr or lengthen "
                "warmup; the last checkpoint, if any, is untouched"
            )
        lr = learning_rate(step, config)
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        history.loss.append(loss)
        history.grad_norm.append(norm)
        history.lr.append(lr)
        step += 1
        last = step == config.n_steps
        if last or step % config.eval_every == 0:
            measure()
        if checkpoint is not None and (last or step % config.checkpoint_every == 0):
            save(checkpoint)
    return history


def _check_fit(model: Decoder, data: Data, config: TrainConfig) -> None:
    vocab_size, max_len = model.config.vocab_size, model.config.max_len
    if config.seq_len > max_len:
        raise ValueError(
            f"seq_len {config.seq_len} exceeds the model's context of {max_len}: lower "
            "TrainConfig.seq_len or raise Config.max_len"
        )
    if len(data.token_bytes) != vocab_size:
        raise ValueError(
            f"the data has a vocabulary of {len(data.token_bytes)}, the model of "
            f"{vocab_size}: set Config.vocab_size = tokenizer.vocab_size"
        )
    for name, ids in (("train", data.train), ("valid", data.valid)):
        if len(ids) < 2 or ids.min() < 0 or ids.max() >= vocab_size:
            raise ValueError(
                f"data.{name} needs at least two ids in 0..{vocab_size - 1}: encode it "
                "with the tokenizer whose vocab_size the model has"
            )


def _adamw(model: Decoder, config: TrainConfig) -> torch.optim.AdamW:
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    gains = [p for p in model.parameters() if p.ndim < 2]
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": gains, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=True)


def _identity(model: Decoder, data: Data, config: TrainConfig) -> dict[str, Any]:
    """What must be the same for a run to continue."""
    return {
        "train_config": dataclasses.asdict(config),
        "model_config": dataclasses.asdict(model.config),
        "tokenizer": data.tokenizer,
        "data": data.fingerprint,
    }


def _restore(path: Path, identity: dict[str, Any]) -> dict[str, Any]:
    if not zipfile.is_zipfile(path):  # what torch.save writes; its index comes last
        raise ValueError(
            f"{path} is truncated or no checkpoint: delete it and start again, or "
            "resume from a copy"
        )
    state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, dict) or state.get("format") != _FORMAT:
        raise ValueError(f"{path} is no checkpoint of train(): give another path")
    for name, here in identity.items():
        there = state[name]
        if there != here:
            what = f"another {name}"
            if isinstance(here, dict):
                keys = [key for key in here if here[key] != there.get(key)]
                what = ", ".join(f"{k} {there.get(k)}, now {here[k]}" for k in keys)
            raise ValueError(
                f"{path} belongs to a run with {what}: use the same again, or another "
                "path"
            )
    return state
