"""A module and its file: weights and configuration together, whole or not at all."""

import dataclasses
import json
from pathlib import Path
from typing import Any, Self

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from llmbook.files import replacing

__all__ = ["SavedModule"]


class SavedModule(nn.Module):
    """A module built from one dataclass, ``config``, of type ``config_type``."""

    config: Any
    config_type: Any

    @property
    def n_params(self) -> int:
        """Number of weights; a tied embedding counts once."""
        return sum(p.numel() for p in self.parameters())

    def save(self, path: str | Path, tokenizer: str = "") -> None:
        """Write weights and configuration to a safetensors file, whole or not at all.

        ``tokenizer`` is the ``Tokenizer.fingerprint`` of the tokenizer the model was
        trained with, "" if there is none.
        """
        about = {
            "format": self._format(),
            "config": json.dumps(dataclasses.asdict(self.config)),
            "tokenizer": tokenizer,
        }
        state = {name: x.contiguous() for name, x in self.state_dict().items()}
        with replacing(path) as temporary:
            save_file(state, temporary, metadata=about)

    @classmethod
    def load(cls, path: str | Path, tokenizer: str = "") -> Self:
        """Read a model that ``save`` wrote, in any precision, as float32 on the CPU.

        ``tokenizer`` is the fingerprint of the tokenizer you will use, compared with
        the one on file; "" skips the comparison. Raises ValueError when they differ,
        or the file is truncated, not ours, has an unknown configuration field or
        weights that its configuration does not describe.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"no model file {path}: check the path")
        try:
            with safe_open(path, framework="pt") as file:
                about = file.metadata() or {}
                # Not an iterable: the file object only has keys().
                state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(
                f"{path} is truncated or no safetensors file ({error}): copy it again"
            ) from error
        if about.get("format") != cls._format() or "config" not in about:
            raise ValueError(
                f"{path} is not a file of {cls.__name__}.save (format "
                f"{cls._format()!r}): copy the weights of another library by name"
            )
        on_file = about.get("tokenizer", "")
        if tokenizer and tokenizer != on_file:
            raise ValueError(
                f"{path} belongs to tokenizer {on_file[:8] or 'unknown'}, not "
                f"{tokenizer[:8]}: load the tokenizer saved beside the model"
            )
        model = cls(cls.config_type.from_dict(json.loads(about["config"])))
        try:
            model.load_state_dict(state)
        except RuntimeError as error:
            raise ValueError(
                f"{path} does not hold the weights its configuration asks for; save "
                f"it again from the model: {error}"
            ) from error
        return model

    @classmethod
    def _format(cls) -> str:
        return f"llmbook {cls.__name__.lower()} 1"
