"""Reverse-mode differentiation over NumPy arrays, in about a hundred lines.

A ``Tensor`` holds an array and its edges. An edge is a pair: a tensor that the array
was made from, and a function that turns the slope of the loss by this array into the
slope by that one. Functions take tensors or plain arrays; a plain array is a constant,
gets no edge and no gradient. Everything is float64, and first derivatives only.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

__all__ = [
    "Tensor",
    "add",
    "backward",
    "cross_entropy",
    "divide",
    "exp",
    "log",
    "logsumexp",
    "matmul",
    "max_over",
    "maximum",
    "mean_over",
    "multiply",
    "order",
    "power",
    "raw",
    "relu",
    "reshape",
    "subtract",
    "sum_over",
    "swap",
    "take",
    "tanh",
    "unbroadcast",
]

Edge = tuple[Any, Callable[[np.ndarray], np.ndarray]]


class Tensor:
    """An array that knows what it was made from.

    Args:
        data: anything NumPy reads as an array; stored as float64, any shape.
        edges: pairs ``(input, pull)``, where ``pull`` maps the slope of the loss by
            this array to the slope by the input, up to broadcasting. Pairs whose input
            is no Tensor are dropped.

    A tensor without edges is a leaf. ``backward`` adds to the ``grad`` of every leaf
    it reaches, an array of the leaf's shape, and leaves other tensors' ``grad`` None.
    Set ``grad = None`` between steps. Do not change ``data`` in place between the
    forward and the backward pass: the edges refer to the same memory.

    Built in ch-multilayer-perceptron-and-backprop.
    """

    __array_ufunc__ = None  # array * tensor: NumPy shall leave it to us

    def __init__(self, data: Any, edges: Iterable[Edge] = ()) -> None:  # noqa: ANN401
        self.data = np.asarray(data, dtype=np.float64)
        self.edges = tuple(e for e in edges if isinstance(e[0], type(self)))
        self.grad = None
        self.shape = self.data.shape

    def detach(self) -> "Tensor":
        """Return a leaf with the same numbers: no gradient passes through it."""
        return type(self)(self.data)


def raw(x: Any) -> np.ndarray:  # noqa: ANN401
    """Return the array of a tensor, or anything else as a float64 array.

    Built in ch-multilayer-perceptron-and-backprop.
    """
    return x.data if isinstance(x, Tensor) else np.asarray(x, dtype=float)


def unbroadcast(g: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Sum a slope over the axes along which broadcasting repeated an input.

    Args:
        g: slope by the broadcast array; its shape is one that ``shape`` broadcasts to.
        shape: of the input before it was repeated.

    Returns:
        The slope by the input, of shape ``shape``.

    Built in ch-multilayer-perceptron-and-backprop.
    """
    g = g.sum(axis=tuple(range(g.ndim - len(shape))))  # axes put in front
    ones = tuple(i for i, n in enumerate(shape) if n == 1)
    return g.sum(axis=ones, keepdims=True)  # axes stretched from length 1


def order(root: Tensor) -> list[Tensor]:
    """List a tensor and all it was made from, every input before its users.

    Depth-first with a stack of its own, so that depth is limited by memory only; each
    tensor is listed once, however many paths lead to it.

    Built in ch-multilayer-perceptron-and-backprop.
    """
    listed, seen, stack = [], set(), [(root, False)]
    while stack:
        node, inputs_listed = stack.pop()
        if inputs_listed:
            listed.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            stack.append((node, True))  # comes up again after its inputs
            stack.extend((x, False) for x, _ in node.edges)
    return listed


def backward(root: Any) -> None:  # noqa: ANN401
    """Add the slope of one number, the root, to the ``grad`` of every leaf under it.

    Also the method ``Tensor.backward``.

    Raises:
        ValueError: when the root holds more than one number.

    Built in ch-multilayer-perceptron-and-backprop.
    """
    if root.data.size != 1:
        raise ValueError("backward starts at one number: sum or average")
    slopes = {id(root): np.ones(root.shape)}
    for node in reversed(order(root)):
        g = slopes.pop(id(node))  # complete: all its users came before
        for x, pull in node.edges:
            part = unbroadcast(pull(g), x.shape)
            slopes[id(x)] = slopes.get(id(x), 0) + part
        if not node.edges:
            node.grad = g if node.grad is None else node.grad + g  # type: ignore


def add(a: Any, b: Any) -> Tensor:  # noqa: ANN401
    """Return ``a + b``, broadcast. Built in ch-multilayer-perceptron-and-backprop."""
    return Tensor(raw(a) + raw(b), [(a, lambda g: g), (b, lambda g: g)])


def subtract(a: Any, b: Any) -> Tensor:  # noqa: ANN401
    """Return ``a - b``, broadcast. Built in ch-multilayer-perceptron-and-backprop."""
    return Tensor(raw(a) - raw(b), [(a, lambda g: g), (b, lambda g: -g)])


def multiply(a: Any, b: Any) -> Tensor:  # noqa: ANN401
    """Return ``a * b``, broadcast. Built in ch-multilayer-perceptron-and-backprop."""
    A, B = raw(a), raw(b)
    return Tensor(A * B, [(a, lambda g: g * B), (b, lambda g: g * A)])


def divide(a: Any, b: Any) -> Tensor:  # noqa: ANN401
    """Return ``a / b``, broadcast. Built in ch-multilayer-perceptron-and-backprop."""
    A, B = raw(a), raw(b)
    C = A / B
    return Tensor(C, [(a, lambda g: g / B), (b, lambda g: -g * C / B)])


def power(a: Any, n: float) -> Tensor:  # noqa: ANN401
    """Return ``a**n``, n a constant. Built in ch-multilayer-perceptron-and-backprop."""
    A = raw(a)
    return Tensor(A**n, [(a, lambda g: g * n * A ** (n - 1))])


def matmul(a: Any, b: Any) -> Tensor:  # noqa: ANN401
    """Return ``a @ b`` for arrays with at least two axes; leading axes broadcast.

    Raises:
        ValueError: when one of them has fewer axes.

    Built in ch-multilayer-perceptron-and-backprop.
    """
    A, B = raw(a), raw(b)
    if min(A.ndim, B.ndim) < 2:
        raise ValueError("matmul needs two axes or more: reshape vectors")
    return Tensor(A @ B, [(a, lambda g: g @ B.mT), (b, lambda g: A.mT @ g)])


def exp(a: Any) -> Tensor:  # noqa: ANN401
    """Return e to the power ``a``. Built in ch-multilayer-perceptron-and-backprop."""
    y = np.exp(raw(a))
    return Tensor(y, [(a, lambda g: g * y)])


def log(a: Any) -> Tensor:  # noqa: ANN401
    """Return the natural log. Built in ch-multilayer-perceptron-and-backprop."""
    A = raw(a)
    return Tensor(np.log(A), [(a, lambda g: g / A)])


def tanh(a: Any) -> Tensor:  # noqa: ANN401
    """Return tanh of ``a``. Built in ch-multilayer-perceptron-and-backprop."""
    y = np.tanh(raw(a))
    return Tensor(y, [(a, lambda g: g * (1 - y**2))])


def relu(a: Any) -> Tensor:  # noqa: ANN401
    """Return max(a, 0) with slope 0 at 0, as PyTorch has it.

    Built in ch-multilayer-perceptron-and-backprop.
    """
    A = raw(a)
    return Tensor(np.maximum(A, 0), [(a, lambda g: g * (A > 0))])


def maximum(a: Any, b: Any) -> Tensor:  # noqa: ANN401
    """Return the larger entry by entry, broadcast; a tie gives half to each.

    Built in ch-multilayer-perceptron-and-backprop.
    """
    A, B = raw(a), raw(b)
    won = (A > B) + 0.5 * (A == B)
    edges = [(a, lambda g: g * won), (b, lambda g: g * (1 - won))]
    return Tensor(np.maximum(A, B), edges)


def sum_over(a: Any, axis: Any = None, keepdims: bool = False) -> Tensor:  # noqa: ANN401
    """Sum over one axis, several or all.

    Built in ch-multilayer-perceptron-and-backprop.
    """
    A = raw(a)
    kept = A.sum(axis=axis, keepdims=True).shape
    back = [(a, lambda g: np.broadcast_to(g.reshape(kept), A.shape))]
    return Tensor(A.sum(axis=axis, keepdims=keepdims), back)


def mean_over(a: Any, axis: Any = None, keepdims: bool = False) -> Tensor:  # noqa: ANN401
    """Average over one axis, several or all.

    Built in ch-multilayer-perceptron-and-backprop.
    """
    total = sum_over(a, axis, keepdims)
    return multiply(total, total.data.size / raw(a).size)


def max_over(a: Any, axis: Any = None, keepdims: bool = False) -> Tensor:  # noqa: ANN401
    """Return the largest over one axis, several or all; ties share the slope.

    Built in ch-multilayer-perceptron-and-backprop.
    """
    A = raw(a)
    top = A.max(axis=axis, keepdims=True)
    tied = top == A
    share = tied / tied.sum(axis=axis, keepdims=True)
    back = [(a, lambda g: g.reshape(top.shape) * share)]
    return Tensor(A.max(axis=axis, keepdims=keepdims), back)


def take(a: Any, key: Any) -> Tensor:  # noqa: ANN401
    """Return ``a[key]`` for any key NumPy reads; an entry taken twice gets both slopes.

    Built in ch-multilayer-perceptron-and-backprop.
    """
    A = raw(a)

    def pull(g: np.ndarray) -> np.ndarray:
        slope = np.zeros(A.shape)
        np.add.at(slope, key, g)  # slope[key] += g would keep only the last
        return slope

    return Tensor(A[key], [(a, pull)])


def reshape(a: Any, shape: tuple[int, ...]) -> Tensor:  # noqa: ANN401
    """Return the same numbers in another shape.

    Built in ch-multilayer-perceptron-and-backprop.
    """
    A = raw(a)
    return Tensor(A.reshape(shape), [(a, lambda g: g.reshape(A.shape))])


def swap(a: Any, i: int, j: int) -> Tensor:  # noqa: ANN401
    """Exchange two axes. Built in ch-multilayer-perceptron-and-backprop."""
    return Tensor(raw(a).swapaxes(i, j), [(a, lambda g: g.swapaxes(i, j))])


def logsumexp(z: Any) -> Tensor:  # noqa: ANN401
    """Return log of the sum of exp over the last axis, for numbers of any size.

    Built in ch-multilayer-perceptron-and-backprop.
    """
    top = raw(z).max(axis=-1, keepdims=True)  # a constant: its slope cancels
    return add(log(sum_over(exp(subtract(z, top)), -1)), top[..., 0])


def cross_entropy(z: Any, Y: np.ndarray) -> Tensor:  # noqa: ANN401
    """Return the negative log-probability of the right class, example by example.

    Args:
        z: logits, ``(..., classes)``.
        Y: one-hot labels, of a shape that broadcasts with it.

    Returns:
        Tensor of shape ``(...)``.

    Built in ch-multilayer-perceptron-and-backprop.
    """
    return subtract(logsumexp(z), sum_over(multiply(z, Y), -1))


_METHODS: dict[str, Any] = {
    "backward": backward,
    "__add__": add,
    "__radd__": add,
    "__sub__": subtract,
    "__rsub__": lambda a, b: subtract(b, a),
    "__mul__": multiply,
    "__rmul__": multiply,
    "__neg__": lambda a: multiply(a, -1.0),
    "__truediv__": divide,
    "__rtruediv__": lambda a, b: divide(b, a),
    "__pow__": power,
    "__matmul__": matmul,
    "__rmatmul__": lambda a, b: matmul(b, a),
    "__getitem__": take,
    "sum": sum_over,
    "mean": mean_over,
    "max": max_over,
    "reshape": lambda a, *shape: reshape(a, shape),
    "mT": property(lambda a: swap(a, -1, -2)),
}
for _name, _method in _METHODS.items():
    setattr(Tensor, _name, _method)
