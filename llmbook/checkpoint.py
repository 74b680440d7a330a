"""The state of a run in one file: written whole, read by the run it belongs to."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from llmbook.files import replacing

__all__ = ["find_checkpoint", "write_checkpoint"]

_FORMAT = "llmbook training 1"


def write_checkpoint(
    path: str | Path, state: dict[str, Any], identity: dict[str, Any]
) -> None:
    """Store tensors, numbers, lists and dictionaries; an old file is replaced whole.

    ``identity`` is what must be the same for the run to continue: its configuration,
    a hash of its data. Its keys and those of ``state`` must differ. A process killed
    in the middle leaves the old file as it was.
    """
    with replacing(path) as temporary:
        torch.save({"format": _FORMAT, **state, **identity}, temporary)


def find_checkpoint(
    path: str | Path | None, resume: bool, identity: dict[str, Any]
) -> dict[str, Any] | None:
    """Read the checkpoint of the run that ``identity`` names; None if there is none.

    Raises FileNotFoundError when the folder is missing, FileExistsError when there is
    a file and ``resume`` is off, and ValueError when the file is damaged, of another
    program, or of a run with another identity; it names what differs.
    """
    if path is None:
        return None
    if not Path(path).parent.is_dir():
        raise FileNotFoundError(f"no folder for {path}: create it first")
    if not Path(path).exists():
        return None
    if not resume:
        raise FileExistsError(
            f"{path} exists and would be overwritten: pass resume=True to continue "
            "that run, or another path"
        )
    if not zipfile.is_zipfile(path):  # what torch.save writes; its index comes last
        raise ValueError(
            f"{path} is truncated or no checkpoint: delete it and start again, or "
            "resume from a copy"
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError) as error:  # nothing foreign is run
        raise ValueError(
            f"{path} is damaged or no checkpoint of train(): give another path"
        ) from error
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
