"""Options that several verbs share, and the suites, zoos, generators and backbones that they name."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from wildpdiff.errors import DataError, WildpdiffError
from wildpdiff.records import truth
from wildpdiff.tasks.framing import Framing, check_framing

if TYPE_CHECKING:
    from wildpdiff.adapters.adapter import AdapterConfig
    from wildpdiff.backbones.backbone import Backbone
    from wildpdiff.conditions.base import Featuriser
    from wildpdiff.generator import Generator
    from wildpdiff.tasks.task import ClassSuite, Group, ImageSuite, Task
    from wildpdiff.texts import TextSuite
    from wildpdiff.zoo.store import Zoo


def _seed(value: int) -> int:
    """Refused here and not by a range, whose bounds every help page would spell out."""
    if not 0 <= value < 2**63:
        raise typer.BadParameter("give a whole number from 0 to 2⁶³ − 1")
    return value


JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON, alone on stdout.")]
SeedOption = Annotated[int, typer.Option("--seed", callback=_seed, help="Seed of everything random.")]
OutOption = Annotated[Path, typer.Option("--out", help="Output folder.")]
ThreadsOption = Annotated[
    int | None, typer.Option("--threads", min=1, help="CPU cores; default: OMP_NUM_THREADS, or all.")
]
SUITE_HELP = (
    "savanna, a table (path,label,task,… or text,label,task,…), a folder with TASK/CLASS/IMAGE, or a file of a "
    "camera-trap format."
)
SuiteOption = Annotated[str, typer.Option("--suite", help=SUITE_HELP)]
SuitesOption = Annotated[
    list[str] | None,
    typer.Option("--suite", help=f"{SUITE_HELP} Several, or FILE,FILE,…, are joined.", show_default="savanna"),
]
SuiteSettings = Annotated[
    list[str] | None, typer.Option("-o", "--option", metavar="KEY=VALUE", help="An option of the suite; repeatable.")
]
ColumnsOption = Annotated[
    str | None,
    typer.Option(
        "--columns",
        metavar="WORD=COLUMN,…",
        help="Columns of the suite's table by what they hold, for example path=File,label=Species,task=Station.",
    ),
]
BackboneOption = Annotated[str, typer.Option("--backbone", help="Name of a bundled backbone, or folder of a backbone.")]
ModelOption = Annotated[
    str,
    typer.Option(
        "--backbone",
        help="Name of a bundled backbone, folder of a backbone or of a model of transformers, or module:function.",
    ),
]
LoraOption = Annotated[
    Path | None, typer.Option("--lora", help="JSON file with settings of a peft.LoraConfig, or a part of them.")
]
RankOption = Annotated[int | None, typer.Option("--rank", min=1, help="Rank of the LoRA factors.")]
AlphaOption = Annotated[float | None, typer.Option("--alpha", help="LoRA's alpha.")]
TargetsOption = Annotated[
    str | None, typer.Option("--targets", help="Modules that get factors: NAME,NAME,… or all-linear.")
]
LayersOption = Annotated[
    str | None,
    typer.Option(
        "--layers",
        metavar="N,N,…",
        help="Layers that get factors, from 0; all before the first is computed once an example. Default: all.",
    ),
]
AdapterBackboneOption = Annotated[
    str | None, typer.Option("--backbone", help="Folder of the adapter's backbone, unless it is bundled.")
]
GeneratorArgument = Annotated[Path, typer.Argument(metavar="GENERATOR", help="Folder of a fitted generator.")]
GeneratorBackboneOption = Annotated[
    str | None, typer.Option("--backbone", help="Folder of the backbone, if the generator does not contain it.")
]
ClipOption = Annotated[
    Path | None,
    typer.Option("--clip", help="Folder of a CLIP model that encodes descriptions' images instead of the backbone."),
]
LabelledOption = Annotated[
    Path,
    typer.Option(
        "--images",
        "--texts",
        help="Labelled images: a folder CLASS/IMAGE, or a table (path,label,task); or a table of texts "
        "(text,label,task).",
    ),
]
BoxesOption = Annotated[
    Path | None, typer.Option("--boxes", help="Detections of the images: a MegaDetector or SpeciesNet file.")
]
SkipOption = Annotated[
    bool, typer.Option("--skip-unreadable", help="Skip any number of files that cannot be read; else few.")
]
SamplesOption = Annotated[int, typer.Option("--samples", min=1, help="Adapters per task; all of them count.")]

Remarked = Literal["all", "few", "none"]
"""Which remarks on a table a verb shows."""

TABLE_SIZE = 96
"""Pixels a side of a table's images where no backbone decides it."""


def key_values(
    option: str, pairs: Sequence[str] | None, refusal: type[WildpdiffError] = DataError, *, once: bool = True
) -> dict[str, str]:
    """``KEY=VALUE`` texts as a dictionary; without ``once`` the last value of a key counts.

    Raises:
        refusal: a text has no key or no value, or a key is given twice.
    """
    values: dict[str, str] = {}
    for pair in pairs or ():
        name, _, value = (part.strip() for part in pair.partition("="))
        if not name or not value:
            raise refusal(f"{option} {pair!r} has no key or no value; write it as KEY=VALUE.")
        if once and name in values:
            raise refusal(f"{option} {name!r} is given twice; give one value.")
        values[name] = value
    return values


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _unseen(text: str) -> int | float | tuple[str, ...]:
    for kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            continue
        if math.isfinite(number):
            return number
    return _names(text)


def _columns(text: str) -> dict[str, str]:
    pairs = [pair.partition("=") for pair in text.split(",") if pair.strip()]
    if not pairs or not all(word.strip() and name.strip() for word, _, name in pairs):
        raise ValueError(text)
    return {word.strip(): name.strip() for word, _, name in pairs}


_TABLE_KINDS: Mapping[str, Callable[[str], Any]] = {
    "columns": _columns,
    "by_time": truth,
    "unreadable": float,
    "seed": int,
    "image_size": int,
    "minimum": int,
    "root": str,
    "classes": _names,
    "ignore": _names,
    "unseen": _unseen,
    "keep": truth,
    "framing": check_framing,
    "trained": truth,
}
"""The fields of ``TableOptions`` as they are typed."""


def named_columns(columns: str | None) -> dict[str, str] | None:
    """The names of ``--columns`` by word; raises :class:`DataError` where it has none."""
    try:
        return None if columns is None else _columns(columns)
    except ValueError:
        raise DataError(f"--columns is {columns!r}; write WORD=COLUMN, as in path=File,label=Species.") from None


def with_columns(pairs: Sequence[str] | None, columns: str | None) -> list[str]:
    """The ``KEY=VALUE`` texts of a suite with those of ``--columns``; raises :class:`DataError` where it has none."""
    named_columns(columns)
    return [*(pairs or ()), *([] if columns is None else [f"columns={columns}"])]


def setting_words(pairs: Sequence[str] | None) -> list[str]:
    """The words of a command line for the ``KEY=VALUE`` texts of a suite."""
    parts = [(pair, *pair.partition("=")) for pair in pairs or ()]
    return [
        word for pair, key, _, value in parts for word in (("--columns", value) if key == "columns" else ("-o", pair))
    ]


def suite_inputs(suite: str | Sequence[str] | None) -> tuple[str, ...]:
    """The names or paths of ``--suite``, which may be given several times or with commas; ``savanna`` without any."""
    given = [suite] if isinstance(suite, str) else suite or ["savanna"]
    parts = ([entry] if Path(entry).exists() else entry.split(",") for entry in given)
    return tuple(part.strip() for found in parts for part in found if part.strip())


def files_of(inputs: Iterable[str]) -> list[Path]:
    """The files that are read of inputs, pictures apart: of a folder, those in it."""
    paths = map(Path, inputs)
    return [file for path in paths for file in (path.iterdir() if path.is_dir() else (path,))]


def suite_settings(suite: str | Sequence[str] | None, pairs: Sequence[str] | None) -> dict[str, Any]:
    """The ``KEY=VALUE`` texts of a suite as values of the right kinds; raises :class:`DataError`."""
    from wildpdiff.camera_traps.registry import parse_options, suite_providers

    inputs = suite_inputs(suite)
    provider = suite_providers().get(inputs[0]) if len(inputs) == 1 else None
    kinds = _TABLE_KINDS if provider is None else provider.options
    # Sorted as JSON will have them, so that a report drawn again from results.json is the same to the byte.
    return dict(sorted(parse_options(key_values("Option", pairs, once=False), kinds).items()))


def open_suite(
    suite: str | Sequence[str] | None,
    pairs: Sequence[str] | None,
    backbone: Backbone | None = None,
    seed: int = 0,
    *,
    framing: Framing | None = "square",
    remarks: Remarked = "few",
    learning: bool = True,
) -> ClassSuite:
    """A suite with its options, fitted to a backbone's image size, framing and classes where one is given.

    Args:
        suite: names or paths, as :func:`suite_inputs` takes them.
        pairs: its options as ``KEY=VALUE``.
        backbone: that it is read for.
        seed: of the suite.
        framing: of a table's pictures where there is no backbone; None takes the one that suits them.
        remarks: of a table, which are shown: few are those on pictures that are left out, and the number of the others.
        learning: whether models learn from it; without, labels that the backbone does not know are left out.

    Raises:
        DataError: no such suite or option, or labels, classes or a framing that the backbone does not know.
    """
    from wildpdiff.camera_traps.registry import load_suite, suite_providers
    from wildpdiff.camera_traps.table_suite import TableSuite
    from wildpdiff.cli.terminal import remark

    inputs = suite_inputs(suite)
    known: dict[str, Any] = {"seed": seed, "framing": framing}
    settings = suite_settings(inputs, pairs)
    if is_texts(inputs, pairs):
        texts = _open_texts(inputs[0], settings, backbone, seed=seed, learning=learning)
        _show_remarks(texts.remarks, (), remarks, _command("show", inputs, pairs))
        return texts
    if backbone is not None and not backbone.image_size:
        raise DataError(
            f"{backbone.name} reads no pictures, and {inputs[0]} is no table of texts. Give one with the columns text, "
            "label and task, or name them, as in --columns text=COLUMN."
        )
    if backbone is not None:
        known |= {"image_size": backbone.image_size, "classes": backbone.classes, "framing": backbone.framing}
        if settings.get("framing", backbone.framing) != backbone.framing:
            raise DataError(f"The framing is {settings['framing']!r}, the model's {backbone.framing!r}. Leave it out.")
    elif inputs[0] not in suite_providers():
        known["image_size"] = TABLE_SIZE
    if inputs[0] not in suite_providers():
        known["learning"] = learning
    found = load_suite(inputs, **{**known, **settings})
    if isinstance(found, TableSuite):
        found.notify = remark
        _show_remarks(found.remarks, found.left_out, remarks, _command("check", inputs, pairs))
    return found


def _command(verb: str, inputs: Sequence[str], pairs: Sequence[str] | None) -> str:
    return shlex.join(["wildpdiff", "suite", verb, *inputs, *setting_words(pairs)])


def _show_remarks(remarks: Sequence[str], left_out: Sequence[str], which: Remarked, command: str) -> None:
    """Show all remarks on a table; or those on what is left out, the number of the others and a command for them."""
    from wildpdiff.cli.terminal import remark

    shown: Mapping[Remarked, Sequence[str]] = {"all": remarks, "few": left_out, "none": ()}
    for sentence in shown[which]:
        remark(sentence)
    if which == "few" and len(remarks) > len(left_out):
        others = len(remarks) - len(left_out)
        remark(f"Remarks on the table that are not shown here: {others}. {command} shows them.")


def is_texts(suite: str | Sequence[str] | None, pairs: Sequence[str] | None) -> bool:
    """Whether a suite is a table of texts; raises :class:`DataError` where it is several."""
    from wildpdiff.texts import is_text_table

    inputs = suite_inputs(suite)
    columns = suite_settings(inputs, pairs).get("columns")
    found = all(is_text_table(Path(entry), columns) for entry in inputs)
    if found and len(inputs) > 1:
        raise DataError(f"{inputs[0]} and {inputs[1]} are tables of texts, which are not joined. Put them into one.")
    return found


def images_of(suite: ClassSuite) -> ImageSuite:
    """The suite, which has to be one of pictures; raises :class:`DataError`."""
    from wildpdiff.tasks.task import ImageSuite

    if not isinstance(suite, ImageSuite):
        raise DataError(f"{suite.name} is a table of texts, and pictures are read here. Give a table of pictures.")
    return suite


def _open_texts(
    table: str, settings: Mapping[str, Any], backbone: Backbone | None, *, seed: int, learning: bool
) -> TextSuite:
    """A table of texts, with the classes of a backbone where one is given."""
    from wildpdiff.texts import read_text_suite

    usable = ("columns", "unseen", "classes", "seed")
    odd = next((name for name in settings if name not in usable), None)
    if odd is not None:
        raise DataError(f"Option {odd!r} is of pictures; of a table of texts there are {', '.join(usable)}.")
    if backbone is not None and backbone.image_size:
        raise DataError(f"{table} is a table of texts, and {backbone.name} reads pictures. Give a text model.")
    classes = None if backbone is None else backbone.classes
    return read_text_suite(table, **{"classes": classes, "seed": seed, "learning": learning, **settings})


def tasks_of(suite: ClassSuite, group: Group) -> tuple[Task, ...]:
    """The tasks of a group; raises :class:`DataError`, with the reasons that a table has, where there are none."""
    from wildpdiff.camera_traps.table_suite import TableSuite

    tasks = suite.tasks(group)
    if not tasks:
        why = suite.why_none(group) if isinstance(suite, TableSuite) else "Configure some."
        raise DataError(f"The suite {suite.name} has no {group} tasks. {why}")
    return tasks


def lora_settings(
    file: Path | None, rank: int | None, alpha: float | None, targets: str | None, *, layers: str | None
) -> dict[str, Any]:
    """Settings of a ``peft.LoraConfig``: of a JSON file, and those of the options before it.

    Raises:
        ArtifactError: the file cannot be read.
        DataError: it holds no object, or the layers are no whole numbers.
    """
    from wildpdiff.disk import read_json

    found = {} if file is None else read_json(file)
    if not isinstance(found, dict):
        raise DataError(f"{file} holds no JSON object. Give the settings of a peft.LoraConfig.")
    names = targets if targets is None or targets == "all-linear" else _names(targets)
    if layers is not None and not all(name.isdecimal() for name in _names(layers) or [""]):
        raise DataError(f"--layers is {layers!r}; give whole numbers from 0, separated by commas.")
    chosen = None if layers is None else [int(name) for name in _names(layers)]
    given = {"r": rank, "lora_alpha": alpha, "target_modules": names, "layers_to_transform": chosen}
    as_rank = {} if rank is None else {"lora_alpha": rank}  # where neither file nor option has an alpha
    return {**as_rank, **found, **{key: value for key, value in given.items() if value is not None}}


def open_model(name: str, lora: Mapping[str, Any], suite: Callable[[], ClassSuite]) -> Backbone:
    """A backbone, or a model made into one; of a model with another head the classes are those of the tasks.

    A module of the user's own, of which nothing states how pictures are prepared, takes them at the suite's size.

    Raises:
        ArtifactError: there is no such model.
        TrainingError: LoRA cannot attach as stated.
    """
    from wildpdiff.backbones.backbone import Backbone, LoraSpec, model_hash
    from wildpdiff.backbones.collate import Collate, ImageCollate, TensorCollate, TextCollate
    from wildpdiff.backbones.registry import is_stored, load_backbone
    from wildpdiff.tasks.objective import Classification
    from wildpdiff.texts import TextSuite

    if not is_stored(name) and (lora or ":" in name or (Path(name) / "config.json").is_file()):
        opened = suite()
        found = Backbone.from_pretrained(name, lora=lora, objective=Classification(tuple(opened.classes)))
        collate: Collate = found.collate
        if isinstance(collate, TensorCollate) and (size := getattr(opened, "image_size", 0)):
            collate = ImageCollate(collate.argument, size)
        elif isinstance(collate, ImageCollate) and isinstance(opened, TextSuite):
            raise DataError(f"{opened.name} is a table of texts, and {name} reads pictures. Give a text model.")
        elif isinstance(collate, TextCollate) and isinstance(opened, TextSuite):
            collate = collate.fitted(opened.texts)
        if collate is not found.collate:
            found = replace(found, collate=collate, backbone_hash=model_hash(found.module, collate))
        return found
    backbone = load_backbone(name)
    if not lora:
        return backbone
    own = backbone.lora
    stated = {"peft_type": "LORA", "r": own.rank, "lora_alpha": own.alpha, "target_modules": list(own.target_modules)}
    settings = {**stated, "modules_to_save": list(own.modules_to_save) or None, **lora}
    return backbone.with_lora(LoraSpec.from_peft(settings, backbone.module))


def open_base(name: str, adapter: AdapterConfig, classes: Sequence[str]) -> Backbone:
    """The model that an adapter is for: a stored backbone, or that of a folder of ``transformers``.

    Raises:
        ArtifactError: there is no such model.
    """
    from wildpdiff.backbones.backbone import Backbone, LoraSpec
    from wildpdiff.backbones.registry import is_stored, load_backbone
    from wildpdiff.tasks.objective import Classification

    if is_stored(name) or not (Path(name) / "config.json").is_file():
        return load_backbone(name)
    return Backbone.from_pretrained(name, lora=LoraSpec.of(adapter), objective=Classification(tuple(classes)))


def find_task(suite: ClassSuite, name: str) -> Task:
    """The task of this name in any group or none; raises :class:`DataError` where there is none."""
    from wildpdiff.camera_traps.table_suite import TableSuite
    from wildpdiff.tasks.task import GROUPS
    from wildpdiff.texts import TextSuite

    found: Task | None
    if isinstance(suite, TableSuite | TextSuite):
        found, names = suite.find(name), [task.title for task in suite.all_tasks]
    else:
        tasks: dict[str, Task] = {task.name: task for group in GROUPS for task in suite.tasks(group)}
        found, names = tasks.get(name), list(tasks)
    if found is None:
        near = get_close_matches(name, names, 3) or names[:3]
        some = ", ".join(near) + (f", … {names[-1]}" if len(names) > len(near) else "")
        raise DataError(f"The suite {suite.name} has no task {name!r}; its {len(names)} tasks are {some}.")
    return found


def open_zoo(folder: Path) -> Zoo:
    """A zoo, with a remark where an earlier version built it; raises as :meth:`Zoo.open`."""
    from wildpdiff.cli.terminal import remark
    from wildpdiff.zoo.store import Zoo

    zoo = Zoo.open(folder)
    if not zoo.hashed:
        remark(
            f"The zoo in {folder} is of an earlier version, which kept no hashes: whether files were altered is not "
            "known."
        )
    return zoo


def backbone_of_zoo(name: str, zoo: Zoo) -> Backbone:
    """The named backbone; raises :class:`AdapterMismatchError` where the zoo is of another one."""
    from wildpdiff.backbones.registry import load_backbone

    backbone = load_backbone(name)
    if not zoo.imported:
        backbone.require(zoo.plan.adapter, f"The zoo in {zoo.folder} is", "Give the zoo's backbone by --backbone.")
    return backbone


def image_reader(clip: Path | None) -> Featuriser | None:
    """CLIP from a local folder, or None: the backbone reads the images. Raises as :class:`ClipFeaturiser`."""
    from wildpdiff.conditions.clip import ClipFeaturiser

    return None if clip is None else ClipFeaturiser(clip)


def open_generator(folder: Path, backbone: str | Backbone | None, clip: Path | None) -> Generator:
    """A generator.

    Args:
        folder: of the generator.
        backbone: that it is for, or its name or folder; None takes the one that it names.
        clip: folder of the CLIP model that it was fitted with.

    Raises:
        WildpdiffError: as :meth:`Generator.from_pretrained`, :func:`load_backbone` and :func:`image_reader`.
    """
    from wildpdiff.backbones.registry import load_backbone
    from wildpdiff.generator import Generator

    model = load_backbone(backbone) if isinstance(backbone, str) else backbone
    return Generator.from_pretrained(folder, model, image_reader(clip))
