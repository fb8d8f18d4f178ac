"""Write into ``toy-1`` the values that its files give today; ran once, when the folder was made.

``toy-1`` is what ``toy_chain.chain`` wrote: zoo, generator and trust of schema version 1 on thirty toy tasks. A later
version gets a folder of its own; this one is never written again.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))


def main() -> None:
    """Adapters of the three unseen toy tasks, and the trust in them."""
    import toys
    from wildpdiff.generator import Generator
    from wildpdiff.trust.model import TrustModel

    torch.set_num_threads(1)
    folder = HERE / "toy-1"
    if (folder / "expected.json").exists():
        raise SystemExit(f"{folder} has its values; a new version needs a new folder.")
    backbone = toys.backbone()
    generator = Generator.from_pretrained(folder / "generator", backbone)
    trust = TrustModel.of_generator(folder / "generator", backbone)
    tensors, gains = {}, {}
    for task in toys.ToySuite().tasks("unseen"):
        (estimate,) = generator.sample(task.description, 1, seed=0)
        for name, value in estimate.tensors.items():
            tensors[f"{task.name}/{name}"] = value.contiguous()
        report = trust.assess(estimate, task.description)
        gains[task.name] = {"trust": report.trust, "gain": report.gain, "low": report.low, "high": report.high}
    save_file(tensors, folder / "expected.safetensors")
    (folder / "expected.json").write_text(json.dumps(gains, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
