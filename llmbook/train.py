"""Train a decoder, resume as if never stopped, on one process or under torchrun."""

import atexit
import hashlib
import math
import os
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch import distributed as dist
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from llmbook.checkpoint import find_checkpoint, write_checkpoint
from llmbook.model import Decoder
from llmbook.tokenizer import Tokenizer

__all__ = ["Data", "History", "TrainConfig", "bits_per_byte"]
__all__ += ["get_batch", "learning_rate", "train"]

Array = np.ndarray


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a run, next to the model and the data."""

    n_steps: int = 1000  # updates of the weights
    batch_size: int = 16  # sequences per update, over all processes
    accumulate: int = 1  # pieces a batch is cut into when memory is short
    seq_len: int = 64  # tokens per sequence
    lr: float = 3e-3  # learning rate at the end of the warmup
    warmup: int = 50  # steps from 0 to lr, linearly
    final_lr: float = 0.1  # learning rate at the end, as a fraction of lr
    weight_decay: float = 0.1  # of matrices; gains of norms do not decay
    betas: tuple[float, float] = (0.9, 0.95)  # AdamW's memory of gradient and square
    clip: float = 1.0  # largest norm of the gradient
    bfloat16: bool = False  # matrix products in 16 bits; weights and AdamW keep 32
    eval_every: int = 100  # steps between measurements on held-out text
    eval_tokens: int = 16_384  # held-out tokens per measurement; 0 takes all
    checkpoint_every: int = 500  # steps between checkpoints, if there is a path
    seed: int = 0  # of the order of the data

    def __post_init__(self) -> None:
        may_be_zero = "warmup final_lr weight_decay bfloat16 eval_tokens seed".split()
        for name, value in vars(self).items():
            if np.min(value) < 0 or (np.min(value) == 0 and name not in may_be_zero):
                raise ValueError(f"TrainConfig.{name} must be positive, not {value!r}")
        if self.batch_size % self.accumulate:
            raise ValueError("no equal pieces: let accumulate divide batch_size")


@dataclass(frozen=True)
class Data:
    """Token ids to learn from and to measure on, and how many bytes each stands for."""

    train: Array  # (N,) ids
    valid: Array  # (M,) ids of text the model never trains on
    token_bytes: Array  # (V,) UTF-8 bytes of each id, 0 for special tokens
    tokenizer: str = ""  # fingerprint of the tokenizer that made the ids

    @classmethod
    def from_texts(cls, train: str, valid: str, tokenizer: Tokenizer) -> "Data":
        """Encode text to learn from and held-out text; special tokens become their id.

        Train the tokenizer on ``train`` alone, or the held-out text is not new to it.
        """
        sizes = np.array([len(token) for token in tokenizer.tokens])
        sizes[list(tokenizer.special.values())] = 0
        texts = (tokenizer.encode(text, special=True) for text in (train, valid))
        ids, held_out = (np.array(text, dtype=np.int32) for text in texts)
        return cls(ids, held_out, sizes, tokenizer.fingerprint)

    @property
    def fingerprint(self) -> str:
        """Hash of ids and tokenizer: a run resumes only on the same data."""
        ids = (x.astype(np.int64).tobytes() for x in (self.train, self.valid))
        return hashlib.sha256(b"".join([self.tokenizer.encode(), *ids])).hexdigest()


@dataclass
class History:
    """What a run measured. Two runs with the same inputs have equal histories."""

    loss: list[float] = field(default_factory=list)  # nats per token, one per step
    grad_norm: list[float] = field(default_factory=list)  # before clipping
    lr: list[float] = field(default_factory=list)  # used at each step
    eval_steps: list[int] = field(default_factory=list)  # updates done when measured
    bits_per_byte: list[float] = field(default_factory=list)  # held-out, per eval_steps


def get_batch(
    tokens: Array, batch_size: int, seq_len: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Cut B sequences of T tokens out of an array (N,), each start equally likely.

    Returns inputs (B, T) and targets (B, T), one token ahead, int64. Raises
    ValueError when N ≤ T. Built in ch-pretraining-run.
    """
    if len(tokens) <= seq_len:
        what = f"{len(tokens)} tokens are too few for a sequence of {seq_len}"
        raise ValueError(f"{what} and the one after it: lower seq_len")
    starts = rng.integers(0, len(tokens) - seq_len, size=batch_size)
    rows = np.stack([tokens[s : s + seq_len + 1] for s in starts])  # (B, T + 1)
    chunk = torch.from_numpy(rows.astype(np.int64))
    return chunk[:, :-1], chunk[:, 1:]


def learning_rate(step: int, config: TrainConfig) -> float:
    """Linear warmup, then half a cosine from ``lr`` down to ``final_lr`` · ``lr``.

    ``step`` is the update to come, 0..n_steps - 1; ``lr`` is reached at ``warmup``.
    Source: Loshchilov and Hutter (2017) for the cosine. Built in ch-pretraining-run.
    """
    if step < config.warmup:
        return config.lr * (step + 1) / (config.warmup + 1)
    done = (step - config.warmup) / (config.n_steps - config.warmup)
    low = config.final_lr
    return config.lr * (low + (1 - low) * 0.5 * (1 + math.cos(math.pi * done)))


def bits_per_byte(
    model: Decoder,
    tokens: Array,
    token_bytes: Array,
    seq_len: int,
    batch_size: int = 16,
) -> float:
    """Cross-entropy in bits per byte of text: comparable across tokenizers.

    ``tokens`` (M,) is cut into windows of ``seq_len``; every token but the first is
    predicted once, from what precedes it in its window, so a score belongs to its
    ``seq_len``. Special tokens cost bits and add no bytes. A uniform guess over bytes
    scores 8, lower is better. ValueError when there is nothing to predict.
    Built in ch-language-models-as-probability.
    """
    n_bytes = int(token_bytes[tokens[1:]].sum())
    if n_bytes == 0:
        raise ValueError("no text to measure on: bring at least two held-out tokens")
    device = model.embed.weight.device
    ids = torch.from_numpy(np.asarray(tokens, dtype=np.int64)).to(device)
    missing = -(len(ids) - 1) % seq_len  # filled up with targets that are skipped
    x = F.pad(ids[:-1], (0, missing)).view(-1, seq_len)  # (windows, T)
    y = F.pad(ids[1:], (0, missing), value=-100).view(-1, seq_len)  # (windows, T)
    nats = 0.0
    with torch.inference_mode():
        for xs, ys in zip(x.split(batch_size), y.split(batch_size), strict=True):
            rows = model(xs).float().flatten(0, 1)  # (B · T, V)
            nats += F.cross_entropy(rows, ys.flatten(), reduction="sum").item()
    return nats / math.log(2) / n_bytes


def train(
    model: Decoder,
    data: Data,
    config: TrainConfig,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    progress: bool = False,
    log_dir: str | Path | None = None,
) -> History:
    """Train in place with AdamW, warmup and cosine, clipping and accumulation.

    A batch depends on ``config.seed`` and its step alone, and the model draws no random
    number: a killed and resumed run is the run that was not, to the last bit on as many
    processes of one CPU thread. Under torchrun each process takes its rows of a batch,
    gradients are averaged, and process 0 alone reads and writes files. On GPUs call
    ``torch.cuda.set_device(LOCAL_RANK)`` and move the model there first.

    ``checkpoint`` (weights, optimizer, step, history) is replaced whole every
    ``checkpoint_every`` steps and at the end; ``resume`` goes on from it if it exists.
    ``progress`` shows a bar and prints measurements, ``log_dir`` is for TensorBoard.
    Raises ValueError when model, data and configuration do not fit, FloatingPointError
    when the loss is not finite, and what ``find_checkpoint`` raises.
    """
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    device = model.embed.weight.device
    if world > 1 and not dist.is_initialized():  # torchrun says where the others are
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        atexit.register(dist.destroy_process_group)
    _check_fit(model, data, config, world)
    identity: dict[str, Any] = {"tokenizer": data.tokenizer, "data": data.fingerprint}
    identity |= {"train_config": asdict(config), "model_config": asdict(model.config)}
    optimizer, history, step = _adamw(model, config), History(), 0
    found = [find_checkpoint(checkpoint, resume, identity) if rank == 0 else None]
    if world > 1:
        dist.broadcast_object_list(found)
    if state := found[0]:
        step, history = state["step"], History(**state["history"])
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    parallel: Any = DistributedDataParallel(model) if world > 1 else None
    held_out = data.valid[: config.eval_tokens or None]
    rows = config.batch_size // config.accumulate // world  # per pass and process
    quiet, writer = rank > 0 or not progress, None
    bar = tqdm(total=config.n_steps, initial=step, disable=quiet)
    if log_dir is not None and rank == 0:
        from torch.utils.tensorboard import SummaryWriter  # slow to import

        # What a killed run logged after its checkpoint goes; the rest stays.
        writer = SummaryWriter(str(log_dir), purge_step=step + bool(step))

    def log(**values: float) -> None:
        for name, value in values.items():
            getattr(history, name).append(value)
            if writer:
                writer.add_scalar(name, value, step)

    def measure() -> None:
        bits = bits_per_byte(model, held_out, data.token_bytes, config.seq_len, rows)
        history.eval_steps.append(step)
        log(bits_per_byte=bits)
        if not quiet:
            loss = f"loss {history.loss[-1]:.3f} nats per token, " if step else ""
            loss += f"held out {bits:.3f} bits per byte"
            bar.write(f"step {step:>6}/{config.n_steps}: {loss}")

    if step == 0:
        measure()
    while step < config.n_steps:
        rng = np.random.default_rng((config.seed, step))
        x, y = get_batch(data.train, config.batch_size, config.seq_len, rng)
        pieces = list(zip(x.split(rows), y.split(rows), strict=True))[rank::world]
        total = torch.zeros((), dtype=torch.float64, device=device)
        for xs, ys in pieces:  # the processes average gradients after the last
            early = parallel and xs is not pieces[-1][0]
            with parallel.no_sync() if early else nullcontext():
                with torch.autocast(device.type, torch.bfloat16, config.bfloat16):
                    logits = (parallel or model)(xs.to(device))  # (rows, T, V)
                part = _cross_entropy(logits, ys.to(device), "mean") / len(pieces)
                part.backward()
            total += part.detach()
        if world > 1:
            dist.all_reduce(total.div_(world))
        loss = total.item()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip).item()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            what = (
                f"step {step}: loss {loss}, gradient norm {norm}: lower lr or warm up"
            )
            raise FloatingPointError(f"{what} longer; the last checkpoint is untouched")
        lr = learning_rate(step, config)
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        bar.update()
        log(loss=loss, grad_norm=norm, lr=lr)
        end = step == config.n_steps
        if end or step % config.eval_every == 0:
            measure()
        due = end or step % config.checkpoint_every == 0
        if due and checkpoint is not None and rank == 0:
            state = {"step": step, "history": asdict(history)}
            state |= {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            write_checkpoint(checkpoint, state, identity)
    bar.close()
    if writer:
        writer.close()
    return history


def _cross_entropy(logits: Tensor, targets: Tensor, reduction: str) -> Tensor:
    """Nats; (B, T, V) and (B, T) flattened to rows (B · T)."""
    rows = logits.float().flatten(0, 1)
    return F.cross_entropy(rows, targets.flatten(), reduction=reduction)


def _adamw(model: Decoder, config: TrainConfig) -> torch.optim.AdamW:
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    gains = [p for p in model.parameters() if p.ndim < 2]
    groups: list[Any] = [{"params": matrices, "weight_decay": config.weight_decay}]
    groups.append({"params": gains, "weight_decay": 0.0})
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=True)


def _check_fit(model: Decoder, data: Data, config: TrainConfig, world: int) -> None:
    size, max_len = model.config.vocab_size, model.config.max_len
    what = None
    if config.batch_size % (config.accumulate * world):
        what = f"batch_size {config.batch_size} does not split among {world} processes"
    if config.seq_len > max_len:
        what = f"seq_len {config.seq_len} exceeds the model's context of {max_len}: "
        what += "lower TrainConfig.seq_len or raise Config.max_len"
    if len(data.token_bytes) != size:
        what = f"data of {len(data.token_bytes)} tokens for a model of {size}: set "
        what += "Config.vocab_size = tokenizer.vocab_size"
    for name, ids in (("train", data.train), ("valid", data.valid)):
        if len(ids) < 2 or ids.min() < 0 or ids.max() >= size:
            what = f"data.{name} needs two or more ids of the model's 0..{size - 1}"
    if what:
        raise ValueError(what)
