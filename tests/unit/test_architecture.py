"""The shape of the code: imports point one way, files stay small, nothing unpickles, names are documented."""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import wildbench
import wildpdiff

SOURCE = Path(wildpdiff.__file__).parent
FILES = sorted(path for path in SOURCE.rglob("*.py"))
BENCH = sorted(path for path in Path(wildbench.__file__).parent.rglob("*.py"))
ALL = [*FILES, *BENCH]
MAX_LINES = 800
"""A file is one idea, and may be as long as that takes; this is no drawer."""
MAX_FUNCTION = 70
"""Lines of a function's body; its docstring, and the help in a command's signature, do not count."""

LAYERS = (
    {"errors"},
    {"registry"},
    {"disk", "quiet", "records", "rng", "tables", "threads"},
    {"parallel", "training"},
    {"artifact", "engine"},
    {"adapters"},
    {"tasks"},
    {"camera_traps"},
    {"texts"},
    {"backbones", "source"},
    {"zoo"},
    {"codec"},
    {"autoencoder"},
    {"diffusion", "conditions"},
    {"conditional_mean"},
    {"posterior"},
    {"generator"},
    {"refine"},
    {"fit", "prediction"},
    {"imported", "growth"},
    {"trust", "baselines"},
    {"evaluate"},
    {"report"},
    {"cli"},
    {"__main__"},
)
"""Rooms from the ground up: each imports from itself and from those before its own line, never beside or above."""

UNORDERED_ROOT = "__init__"
"""The table of contents may name every room."""

TORCH_LOAD = "backbones/efficientnet_lite.py"
"""The one file that reads a published .pth, with ``weights_only``."""

UNPICKLING = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
DEFINITIONS = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


class Import(NamedTuple):
    room: str
    line: int
    late: bool


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def name_of(path: Path) -> str:
    return str(path.relative_to(SOURCE if path.is_relative_to(SOURCE) else SOURCE.parent))


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports_of(path: Path) -> Iterator[Import]:
    """What a file imports of the package, inside functions and under TYPE_CHECKING too."""
    for node in ast.walk(parsed(path)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}:{node.lineno} imports relatively"
            if node.module == "wildpdiff":
                names = [f"wildpdiff.{alias.name}" for alias in node.names]
            else:
                names = [node.module or ""]
        for name in names:
            if name.startswith("wildpdiff."):
                yield Import(name.split(".")[1], node.lineno, node.col_offset > 0)


def test_every_room_has_its_layer() -> None:
    rooms = {room_of(path) for path in FILES} - {UNORDERED_ROOT}
    placed = [room for layer in LAYERS for room in layer]
    assert len(placed) == len(set(placed))
    assert rooms <= set(placed)


def test_imports_point_one_way() -> None:
    against = []
    for path in FILES:
        room = room_of(path)
        if room == UNORDERED_ROOT:
            continue
        height = next(number for number, layer in enumerate(LAYERS) if room in layer)
        below = {name for layer in LAYERS[:height] for name in layer} | {room}
        against += [
            f"{name_of(path)}:{entry.line} {room} -> {entry.room}"
            for entry in imports_of(path)
            if entry.room not in below
        ]
    assert against == []


def test_the_package_knows_nothing_of_the_apparatus() -> None:
    found = []
    for path in FILES:
        for node in ast.walk(parsed(path)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found += [name_of(path) for name in names if name.split(".")[0] == "wildbench"]
    assert found == []


def test_files_and_functions_stay_small() -> None:
    long = [f"{name_of(path)}: {count}" for path in ALL if (count := len(path.read_text().splitlines())) > MAX_LINES]
    for path in ALL:
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                lines = (node.end_lineno or 0) - body[0].lineno + 1 if body else 0
                if lines > MAX_FUNCTION:
                    long.append(f"{name_of(path)}: {node.name}: {lines}")
    assert long == []


MOST_POSITIONAL, MOST_PARAMETERS = 4, 8
LONG_SIGNATURES = {
    "wildpdiff/zoo/build.py build_zoo": "decisions of the user, one each, all but four by name",
    "wildpdiff/evaluate/run.py evaluate": "a scorer in place of the objective",
    "wildpdiff/prediction.py camera_answers": "how answers are shown, cached and reported, by name",
    "wildpdiff/backbones/pretrained.py _attention": "the signature that transformers calls",
    **dict.fromkeys(
        [f"wildpdiff/diffusion/samplers.py {name}" for name in
         ("Sampler.__call__", "ddpm", "ddim", "dpm_solver_2m", "heun", "_x_0", "_velocity")],
        "the seam of samplers, in the order of the formulas",
    ),
}  # fmt: skip
"""Functions of the package with more parameters than the limits, and why; commands have one an option."""


def signatures(module: ast.AST, of: str = "") -> Iterator[tuple[str, list[str], list[str]]]:
    """Name, positional and keyword-only parameters of each function that is not inside another."""
    for node in ast.iter_child_nodes(module):
        if isinstance(node, ast.ClassDef):
            yield from signatures(node, f"{node.name}.")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            positional = [entry.arg for entry in (*node.args.posonlyargs, *node.args.args)]
            own = positional[1:] if of and positional[:1] in (["self"], ["cls"]) else positional
            yield of + node.name, own, [entry.arg for entry in node.args.kwonlyargs]


def test_signatures_stay_short() -> None:
    long = set()
    for path in ALL:
        where = str(path.relative_to(SOURCE.parent))
        for name, positional, by_name in signatures(parsed(path)):
            command = "cli" in path.parts and not name.startswith("_")
            if not command and (len(positional) > MOST_POSITIONAL or len(positional + by_name) > MOST_PARAMETERS):
                long.add(f"{where} {name}")
    assert long == set(LONG_SIGNATURES)


OWN_PIPES = ("parallel.py", "pickle")
"""What a process that the package forked sends back through a pipe; nothing is read from a file."""


def test_nothing_unpickles() -> None:
    found = []
    for path in ALL:
        for node in ast.walk(parsed(path)):
            modules: list[str] = []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                modules = [node.module or ""]
            elif isinstance(node, ast.Call) and not safe_load(path, node):
                found.append(f"{name_of(path)}:{node.lineno} {ast.unparse(node.func)}")
            unpickling = [module for module in modules if module.split(".")[0] in UNPICKLING]
            found += [f"{name_of(path)} {module}" for module in unpickling if (name_of(path), module) != OWN_PIPES]
    assert found == []


def safe_load(path: Path, call: ast.Call) -> bool:
    words = {word.arg: ast.unparse(word.value) for word in call.keywords}
    if ast.unparse(call.func) == "torch.load":
        return name_of(path) == TORCH_LOAD and words.get("weights_only") == "True"
    return not (ast.unparse(call.func) in ("np.load", "numpy.load") and "allow_pickle" in words)


def test_no_room_is_a_drawer_for_everything() -> None:
    parts = {part.removesuffix(".py") for path in ALL for part in Path(name_of(path)).parts}
    assert not parts & {"utils", "util", "helpers", "helper", "common", "misc"}


def test_public_names_are_documented() -> None:
    bare = []
    for path in ALL:
        module = parsed(path)
        bare += [] if ast.get_docstring(module) else [name_of(path)]
        public = [node for node in module.body if isinstance(node, DEFINITIONS) and not node.name.startswith("_")]
        for node in public:
            members = node.body if isinstance(node, ast.ClassDef) else []
            methods = [entry for entry in members if isinstance(entry, ast.FunctionDef) and entry.name[0] != "_"]
            bare += [f"{name_of(path)}: {entry.name}" for entry in (node, *methods) if not ast.get_docstring(entry)]
    assert bare == []


def test_the_tests_above_look_at_all_of_the_package() -> None:
    assert len(FILES) > 50
    assert any(entry.late for path in FILES for entry in imports_of(path)), "late imports are seen"
