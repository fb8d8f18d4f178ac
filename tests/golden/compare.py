"""Run the toy chain at a commit and in the working tree, and name every file or section whose bytes differ.

    python tests/golden/compare.py HEAD~3

Refactorings must change nothing. Both runs are on this machine, since the last bits of a sum depend on the processor.
Where manifests differ in words alone, the tensors say whether numbers do.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
RUN = """
import hashlib, json, sys
sys.path.insert(0, "tests")
from pathlib import Path
import torch, toys, toy_chain
torch.set_num_threads(1)
files = toy_chain.chain(Path(sys.argv[1]), toys.backbone(), 1)
numbers = {name: list(toy_chain.numbers(json.loads(files[name]))) for name in toy_chain.SECTIONS}
hashes = {name: hashlib.sha256(data).hexdigest() for name, data in files.items() if name not in toy_chain.SECTIONS}
print(json.dumps({"hashes": hashes, "numbers": [[value for _, value in numbers[name]] for name in toy_chain.SECTIONS]}))
"""


def run(tree: Path, folder: Path) -> dict[str, object]:
    """Hashes of the files and the numbers of the results that this tree's chain gives."""
    environment = {**os.environ, "PYTHONPATH": str(tree / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(folder)], cwd=tree, env=environment, stdout=subprocess.PIPE, check=True
    )
    result: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return result


def main(revision: str) -> int:
    """Compare; the exit status is 1 where tensors or numbers differ."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tree = folder / "tree"
        subprocess.run(["git", "worktree", "add", "--quiet", "--detach", str(tree), revision], cwd=ROOT, check=True)
        try:
            before, after = run(tree, folder / "before"), run(ROOT, folder / "after")
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=ROOT, check=True)
    old, new = before["hashes"], after["hashes"]
    assert isinstance(old, dict)
    assert isinstance(new, dict)
    odd = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    print("\n".join(f"differs: {name}" for name in odd) or f"all {len(new)} files are equal")
    same = before["numbers"] == after["numbers"]
    print("the numbers of the results are equal" if same else "the numbers of the results differ")
    return int(not same or any(name.endswith(".safetensors") for name in odd))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    raise SystemExit(main(sys.argv[1]))
