"""Loader of transformers models from a local folder: nothing fetched, nothing unpickled, no progress bars."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wildpdiff.quiet import quiet_loading


def load_local(kind: Any, folder: Path | str, **named: Any) -> Any:
    """``kind.from_pretrained`` on a folder's safetensors, in evaluation mode and without gradients.

    Args:
        folder: with ``config.json`` and ``model.safetensors``, or the file that is named.
        named: further arguments, as ``gguf_file``.

    Raises:
        OSError, ValueError: as transformers does where the folder holds no such model.
    """
    with quiet_loading():
        model = kind.from_pretrained(str(folder), **{"local_files_only": True, "use_safetensors": True, **named})
    return model.eval().requires_grad_(False)
