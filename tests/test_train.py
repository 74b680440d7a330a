"""The training loop: it learns, it is exact, and it survives being killed."""

import dataclasses
import json
import math
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from llmbook import train as train_module
from llmbook.model import Config, Decoder
from llmbook.tokenizer import Tokenizer, train_bpe
from llmbook.train import (
    Data,
    History,
    TrainConfig,
    bits_per_byte,
    get_batch,
    learning_rate,
    train,
)

TEXT = "the cat sat on the mat. the dog sat on the log. a cat and a dog sat. " * 40
TOKENIZER = train_bpe(TEXT, 300, special_tokens=["<|end|>"])
DATA = Data.from_texts(TEXT, TEXT[:700], TOKENIZER)
CONFIG = Config(
    vocab_size=TOKENIZER.vocab_size,
    n_layers=1,
    n_heads=2,
    n_kv_heads=1,
    d_model=16,
    d_ff=32,
    max_len=16,
)
RUN = TrainConfig(
    n_steps=12,
    batch_size=4,
    seq_len=16,
    lr=1e-2,
    warmup=3,
    eval_every=5,
    checkpoint_every=4,
)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def fresh() -> Decoder:
    torch.manual_seed(0)
    return Decoder(CONFIG)


def same_weights(a: Decoder, b: Decoder) -> bool:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def test_it_learns():
    run = dataclasses.replace(RUN, n_steps=150, eval_every=50)
    history = train(fresh(), DATA, run)
    assert history.eval_steps == [0, 50, 100, 150]
    assert history.bits_per_byte == sorted(history.bits_per_byte, reverse=True)
    assert history.bits_per_byte[-1] < 0.3 * history.bits_per_byte[0]
    assert len(history.loss) == len(history.lr) == len(history.grad_norm) == 150


def test_same_inputs_same_run():
    first, second, other = fresh(), fresh(), fresh()
    history = train(first, DATA, RUN)
    assert train(second, DATA, RUN) == history
    assert same_weights(first, second)
    train(other, DATA, dataclasses.replace(RUN, seed=1))
    assert not same_weights(first, other)


def test_one_step_equals_adamw_by_hand():
    run = dataclasses.replace(RUN, n_steps=1, warmup=0, clip=1e-3, weight_decay=0.5)
    ours, theirs = fresh(), fresh()
    history = train(ours, DATA, run)
    x, y = get_batch(DATA.train, 4, 16, np.random.default_rng((0, 0)))
    loss = -theirs(x).log_softmax(-1).gather(-1, y[..., None]).mean()
    loss.backward()
    norm = math.sqrt(sum(p.grad.square().sum().item() for p in theirs.parameters()))
    assert history.loss[0] == pytest.approx(loss.item(), rel=1e-5)
    assert history.grad_norm[0] == pytest.approx(norm, rel=1e-5)
    assert norm > 1e-3  # so that clipping acts
    with torch.no_grad():
        for p, ours_p in zip(theirs.parameters(), ours.parameters(), strict=True):
            g = p.grad * 1e-3 / norm
            decayed = p * (1 - run.lr * 0.5) if p.ndim == 2 else p
            # After one step both bias-corrected moments are g and g².
            wanted = decayed - run.lr * g / (g.abs() + 1e-8)
            torch.testing.assert_close(ours_p.data, wanted, atol=1e-4, rtol=0)


def test_accumulation_changes_memory_not_the_run():
    whole, pieces = fresh(), fresh()
    a = train(whole, DATA, RUN)
    b = train(pieces, DATA, dataclasses.replace(RUN, accumulate=4))
    np.testing.assert_allclose(a.loss, b.loss, rtol=1e-4)
    np.testing.assert_allclose(a.grad_norm, b.grad_norm, rtol=1e-3)
    np.testing.assert_allclose(a.bits_per_byte, b.bits_per_byte, rtol=1e-4)


@pytest.mark.parametrize("killed_at", [2, 4, 7, 11])
def test_resumed_run_is_the_run_that_was_never_killed(killed_at, tmp_path, monkeypatch):
    path = tmp_path / "run.pt"
    whole = fresh()
    history = train(whole, DATA, RUN, checkpoint=tmp_path / "whole.pt")

    calls = iter(range(killed_at))

    def killed(*arguments):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return get_batch(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(train_module, "get_batch", killed)
        with pytest.raises(KeyboardInterrupt):
            train(fresh(), DATA, RUN, checkpoint=path)
    assert path.exists() == (killed_at >= RUN.checkpoint_every)

    torch.manual_seed(99)
    resumed = Decoder(CONFIG) if path.exists() else fresh()
    assert train(resumed, DATA, RUN, checkpoint=path, resume=True) == history
    assert same_weights(resumed, whole)
    again = Decoder(CONFIG)  # a finished run resumes to its end at once
    assert train(again, DATA, RUN, checkpoint=path, resume=True) == history
    assert same_weights(again, whole)


def test_checkpoint_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "run.pt"
    saved = []

    def dies_at_the_second(state, temporary):
        saved.append(state["step"])
        if len(saved) == 2:
            temporary.write_bytes(b"half a checkpoint")
            raise OSError("disk full")
        save(state, temporary)

    save = torch.save
    monkeypatch.setattr(torch, "save", dies_at_the_second)
    with pytest.raises(OSError, match="disk full"):
        train(fresh(), DATA, RUN, checkpoint=path)
    assert saved == [4, 8]
    assert torch.load(path, weights_only=True)["step"] == 4
    assert list(tmp_path.iterdir()) == [path]


def test_checkpoint_errors_say_what_to_do(tmp_path):
    path = tmp_path / "run.pt"
    train(fresh(), DATA, RUN, checkpoint=path)
    whole = path.read_bytes()
    with pytest.raises(FileExistsError, match="resume=True"):
        train(fresh(), DATA, RUN, checkpoint=path)

    def resume(model, data, run):
        before = {k: v.clone() for k, v in model.state_dict().items()}
        with pytest.raises(ValueError) as error:
            train(model, data, run, checkpoint=path, resume=True)
        for name, weight in model.state_dict().items():
            assert torch.equal(weight, before[name])
        return str(error.value)

    longer = dataclasses.replace(RUN, n_steps=20, lr=0.5)
    assert "n_steps 12, now 20, lr 0.01, now 0.5" in resume(fresh(), DATA, longer)
    wider = Decoder(dataclasses.replace(CONFIG, d_ff=64))
    assert "d_ff 32, now 64" in resume(wider, DATA, RUN)
    other = dataclasses.replace(DATA, tokenizer="another")
    assert "another tokenizer" in resume(fresh(), other, RUN)
    assert "another data" in resume(
        fresh(), dataclasses.replace(DATA, train=DATA.train[::-1]), RUN
    )
    assert path.read_bytes() == whole

    for size in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert "truncated or no checkpoint" in resume(fresh(), DATA, RUN)
        assert path.read_bytes() == whole[:size]
    torch.save({"format": RuntimeError}, path)  # loading must not unpickle objects
    assert "no checkpoint of train()" in resume(fresh(), DATA, RUN)
    with zipfile.ZipFile(path, "w") as other:
        other.writestr("text", "of another program")
    assert "no checkpoint of train()" in resume(fresh(), DATA, RUN)
    torch.save({"step": 3}, path)
    assert "no checkpoint of train()" in resume(fresh(), DATA, RUN)
    with pytest.raises(FileNotFoundError, match="create it"):
        train(fresh(), DATA, RUN, checkpoint=tmp_path / "missing" / "run.pt")


def test_a_diverging_run_stops_and_keeps_its_checkpoint(tmp_path, monkeypatch):
    path, model = tmp_path / "run.pt", fresh()
    train(fresh(), DATA, RUN, checkpoint=tmp_path / "whole.pt")

    def poisoned(tokens, rows, length, rng):
        if path.exists():
            with torch.no_grad():
                model.norm.weight[0] = math.inf
        return get_batch(tokens, rows, length, rng)

    monkeypatch.setattr(train_module, "get_batch", poisoned)
    with pytest.raises(FloatingPointError, match=r"step 4: loss nan.*lower lr"):
        train(model, DATA, RUN, checkpoint=path)
    state = torch.load(path, weights_only=True)
    assert state["step"] == 4
    assert all(torch.isfinite(w).all() for w in state["model"].values())

    monkeypatch.undo()
    model = fresh()  # a finite loss with an infinite gradient
    model.norm.weight.register_hook(lambda grad: grad * math.inf)
    with pytest.raises(FloatingPointError, match="step 0: loss 5"):
        train(model, DATA, RUN)


def test_schedule_equals_transformers():
    # Here and not above: the processes below import this file.
    from transformers import get_cosine_schedule_with_warmup

    run = TrainConfig(n_steps=40, warmup=0, lr=2.0, final_lr=0.0)
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=2.0)
    theirs = get_cosine_schedule_with_warmup(optimizer, 0, 40)
    for step in range(40):
        assert learning_rate(step, run) == pytest.approx(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()


def test_schedule_warms_up_and_ends_where_it_should():
    run = TrainConfig(n_steps=1000, warmup=9, lr=1.0, final_lr=0.1)
    rates = [learning_rate(step, run) for step in range(1000)]
    assert rates[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert max(rates) == rates[9] == 1.0
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert rates[-1] == pytest.approx(0.1, abs=1e-4)
    assert learning_rate(9 + 991 // 2, run) == pytest.approx(0.55, abs=1e-2)


def test_batches_are_windows_with_the_next_token_as_target():
    tokens = np.arange(100, 120, dtype=np.int32)
    x, y = get_batch(tokens, 500, 16, np.random.default_rng(0))
    assert x.shape == y.shape == (500, 16) and x.dtype == torch.int64
    assert torch.equal(y, x + 1)
    assert set(x[:, 0].tolist()) == {100, 101, 102, 103}  # first and last window too
    assert torch.equal(x, x[:, :1] + torch.arange(16))
    shortest = get_batch(tokens[:17], 1, 16, np.random.default_rng(0))
    assert shortest[1][0, -1] == 116
    with pytest.raises(ValueError, match="16 tokens are too few for a sequence of 16"):
        get_batch(tokens[:16], 1, 16, np.random.default_rng(0))


def test_uniform_model_scores_eight_bits_per_byte():
    tokenizer = Tokenizer()
    model = Decoder(dataclasses.replace(CONFIG, vocab_size=256))
    torch.nn.init.zeros_(model.embed.weight)
    data = Data.from_texts("", "Any text 大 at all.", tokenizer)
    for seq_len in (1, 3, 16):
        bits = bits_per_byte(model, data.valid, data.token_bytes, seq_len)
        assert bits == pytest.approx(8.0)


@pytest.mark.parametrize("n", [2, 16, 17, 18, 33, 200])
def test_bits_per_byte_by_hand(n):
    model, ids = fresh(), DATA.train[:n]
    nats = n_bytes = 0.0
    with torch.no_grad():
        for i in range(1, n):
            start = (i - 1) // 16 * 16  # of the window that predicts token i
            logits = model(torch.tensor(ids[None, start:i], dtype=torch.int64))[0, -1]
            nats -= logits.log_softmax(-1)[ids[i]].item()
            n_bytes += len(TOKENIZER.tokens[ids[i]])
    bits = bits_per_byte(model, ids, DATA.token_bytes, seq_len=16, batch_size=3)
    assert bits == pytest.approx(nats / math.log(2) / n_bytes, rel=1e-5)


def test_eval_tokens_limits_what_is_measured_on():
    for limit, measured in ((50, DATA.valid[:50]), (0, DATA.valid)):
        history = train(fresh(), DATA, dataclasses.replace(RUN, eval_tokens=limit))
        bits = bits_per_byte(fresh(), measured, DATA.token_bytes, 16, 4)
        assert history.bits_per_byte[0] == bits


def test_special_tokens_cost_bits_and_bring_no_bytes():
    data = Data.from_texts("the cat<|end|>", "the<|end|>", TOKENIZER)
    assert data.train[-1] == TOKENIZER.special["<|end|>"]
    assert data.token_bytes[data.train].sum() == len("the cat")
    assert data.tokenizer == TOKENIZER.fingerprint
    for nothing in (data.valid[:1], data.train[-2:], data.train[:0]):
        if data.token_bytes[nothing[1:]].sum() == 0:
            with pytest.raises(ValueError, match="at least two held-out tokens"):
                bits_per_byte(fresh(), nothing, data.token_bytes, 16)


def test_progress_prints_one_line_per_measurement(capsys):
    history = train(fresh(), DATA, RUN, progress=True)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(history.eval_steps) == 4
    assert lines[-1].split()[:2] == ["step", "12/12:"]
    assert f"{history.bits_per_byte[-1]:.3f} bits per byte" in lines[-1]
    train(fresh(), DATA, RUN)
    assert capsys.readouterr().out == ""


def test_errors_before_the_first_step_say_what_to_do():
    above = CONFIG.vocab_size - DATA.train.max()
    below = DATA.train.min() + 1
    train(fresh(), dataclasses.replace(DATA, train=DATA.train + above - 1), RUN)
    train(fresh(), dataclasses.replace(DATA, train=DATA.train - below + 1), RUN)
    train(fresh(), dataclasses.replace(DATA, valid=DATA.valid[:2]), RUN)
    cases = [
        (
            dataclasses.replace(RUN, seq_len=17),
            DATA,
            "exceeds the model's context of 16",
        ),
        (
            RUN,
            dataclasses.replace(DATA, token_bytes=np.ones(999)),
            "tokenizer.vocab_size",
        ),
        (RUN, dataclasses.replace(DATA, train=DATA.train + above), "data.train needs"),
        (RUN, dataclasses.replace(DATA, train=DATA.train - below), "data.train needs"),
        (RUN, dataclasses.replace(DATA, valid=DATA.valid[:1]), "data.valid needs"),
    ]
    for run, data, message in cases:
        model = fresh()
        with pytest.raises(ValueError, match=message):
            train(model, data, run)
        assert same_weights(model, fresh())
    with pytest.raises(ValueError, match="let accumulate divide batch_size"):
        TrainConfig(batch_size=6, accumulate=4)
    for field, value in (("lr", 0.0), ("n_steps", -1), ("betas", (0.9, 0.0))):
        with pytest.raises(ValueError, match=f"TrainConfig.{field} must be positive"):
            TrainConfig(**{field: value})
    assert TrainConfig(warmup=0, weight_decay=0.0).warmup == 0
    assert History() == History()


def test_bfloat16_products_keep_float32_weights():
    run = dataclasses.replace(RUN, n_steps=60, bfloat16=True)
    whole, half = fresh(), fresh()
    a = train(whole, DATA, dataclasses.replace(run, bfloat16=False))
    b = train(half, DATA, run)
    assert {p.dtype for p in half.parameters()} == {torch.float32}
    assert a.loss != b.loss  # it acts
    np.testing.assert_allclose(a.loss[:5], b.loss[:5], rtol=5e-3)
    assert b.bits_per_byte[-1] < 0.7 * b.bits_per_byte[0]
    again = fresh()
    assert train(again, DATA, run) == b and same_weights(again, half)


def test_tensorboard_holds_the_history_of_a_killed_run_too(tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    path, logs = tmp_path / "run.pt", tmp_path / "logs"
    calls = iter(range(6))

    def killed(*arguments):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return get_batch(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(train_module, "get_batch", killed)
        with pytest.raises(KeyboardInterrupt):  # after 6 steps, 2 past the checkpoint
            train(fresh(), DATA, RUN, checkpoint=path, log_dir=logs)
    history = train(fresh(), DATA, RUN, checkpoint=path, resume=True, log_dir=logs)
    events = EventAccumulator(str(logs))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"loss", "grad_norm", "lr", "bits_per_byte"}
    for name in ("loss", "grad_norm", "lr"):
        points = events.Scalars(name)
        assert [p.step for p in points] == list(range(1, 13))
        values = [p.value for p in points]
        assert values == pytest.approx(getattr(history, name), rel=1e-6)
    points = events.Scalars("bits_per_byte")
    assert [p.step for p in points] == history.eval_steps


SCRIPT = """
import dataclasses, json, os, signal, sys
import torch
torch.set_num_threads(1)
from tests.test_train import DATA, RUN, fresh
from llmbook import train as module

out, options = sys.argv[1], json.loads(sys.argv[2])
run = dataclasses.replace(RUN, **options["run"])
rank = os.environ.get("RANK", "0")

def finish(name, **arguments):
    model = fresh()
    history = module.train(model, DATA, run, **arguments)
    with open(f"{out}/{name}.{rank}.json", "w") as file:
        json.dump(dataclasses.asdict(history), file)
    torch.save(model.state_dict(), f"{out}/{name}.{rank}.pt")

if options["whole"]:
    finish("whole")
if options["kill"]:
    left, get_batch = iter(range(options["kill"])), module.get_batch
    def deadly(*args):
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return get_batch(*args)
    module.get_batch = deadly
finish("end", checkpoint=f"{out}/run.pt", resume=True)
"""
PATIENCE = 600  # seconds: a limit against hangs on a busy machine, not a budget


def launch(folder, processes=1, whole=False, kill=0, **run):
    """Run the script above, alone or under torchrun: its exit code and messages."""
    script = folder / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable]
    if processes > 1:  # port 0: the launcher takes one that is free
        command += ["-m", "torch.distributed.run", f"--nproc-per-node={processes}"]
        command += ["--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0"]
        command += ["--local-addr=127.0.0.1"]
    root = Path(__file__).resolve().parent.parent
    env = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    env |= {"GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo"}
    options = json.dumps({"whole": whole, "kill": kill, "run": run})
    process = subprocess.Popen(
        [*command, str(script), str(folder), options],
        cwd=root,
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        _, errors = process.communicate(timeout=PATIENCE)
    finally:
        if process.poll() is None:  # torchrun takes its processes along
            process.terminate()
            process.wait(PATIENCE)
    return process.returncode, errors.decode()


def outcome(folder, name, rank=0):
    history = History(**json.loads((folder / f"{name}.{rank}.json").read_text()))
    return history, torch.load(folder / f"{name}.{rank}.pt", weights_only=True)


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_killed_with_signal_9_and_resumed_is_never_killed(tmp_path):
    whole = train(whole_model := fresh(), DATA, RUN)
    code, errors = launch(tmp_path, kill=6)
    assert code == -9, errors
    assert {p.name for p in tmp_path.iterdir()} == {"script.py", "run.pt"}
    path = tmp_path / "run.pt"
    assert torch.load(path, weights_only=True)["step"] == 4
    torch.manual_seed(99)
    resumed = Decoder(CONFIG)  # here, in another process than the killed one
    assert train(resumed, DATA, RUN, checkpoint=path, resume=True) == whole
    assert same_weights(resumed, whole_model)


def test_two_processes_are_one_process_on_the_joined_batch(tmp_path):
    """Under torchrun, with accumulation in each; and again after both are killed."""
    one = train(fresh(), DATA, RUN)
    code, errors = launch(tmp_path, 2, whole=True, kill=6, accumulate=2)
    assert code != 0 and not list(tmp_path.glob("end.*")), errors
    (first, weights), (second, others) = (outcome(tmp_path, "whole", r) for r in (0, 1))
    assert first == second and equal(weights, others)
    np.testing.assert_allclose(first.loss, one.loss, rtol=1e-4)
    np.testing.assert_allclose(first.grad_norm, one.grad_norm, rtol=1e-3)
    np.testing.assert_allclose(first.bits_per_byte, one.bits_per_byte, rtol=1e-4)
    assert torch.load(tmp_path / "run.pt", weights_only=True)["step"] == 4

    code, errors = launch(tmp_path, 2, accumulate=2)
    assert code == 0, errors
    for rank in (0, 1):  # to the last bit
        history, resumed = outcome(tmp_path, "end", rank)
        assert history == first and equal(resumed, weights)
    assert not list(tmp_path.glob("run.pt.*"))  # no temporary file is left


def test_a_batch_that_does_not_split_is_refused():
    odd = dataclasses.replace(RUN, batch_size=5)
    with pytest.raises(ValueError, match="does not split among 2 processes"):
        train_module._check_fit(fresh(), DATA, odd, world=2)
