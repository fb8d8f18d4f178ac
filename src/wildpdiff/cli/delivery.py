"""The adapter of a task: as loaded, or generated and, where trust is low, the pretrained model in its place."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wildpdiff.cli import options
from wildpdiff.cli.terminal import remark
from wildpdiff.errors import AdapterMismatchError, DataError, DescriptionError

if TYPE_CHECKING:
    from wildpdiff.adapters.adapter import Adapter
    from wildpdiff.backbones.backbone import Backbone
    from wildpdiff.generator import Generator
    from wildpdiff.prediction import Delivered
    from wildpdiff.tasks.description import Description
    from wildpdiff.tasks.task import Task
    from wildpdiff.texts import TextTask
    from wildpdiff.trust.model import TrustModel


def backbone_of(adapter: Adapter, given: str | None) -> Backbone:
    """The backbone that an adapter is for, with the adapter's LoRA setting.

    Args:
        given: a stored backbone, or a folder of ``transformers`` with the model.

    Raises:
        AdapterMismatchError: it is not bundled and none was given, or another was given.
    """
    from wildpdiff.backbones.backbone import OTHER_BACKBONE, LoraSpec
    from wildpdiff.backbones.registry import BUNDLED

    config = adapter.config
    if given is None and config.backbone not in BUNDLED:
        raise AdapterMismatchError(f"The backbone {config.backbone!r} is not bundled. Give its folder by --backbone.")
    backbone = options.open_base(given or config.backbone, config, config.classes)
    if config.backbone_hash and backbone.backbone_hash != config.backbone_hash:
        unnamed = "Give the folder of that one by --backbone."
        backbone.require(config, "The adapter is", OTHER_BACKBONE if given else unnamed)
    # A backbone is stored with its default LoRA setting; an adapter of another rank or other modules still fits.
    return backbone.with_lora(LoraSpec.of(config))


def labelled_texts(
    table: Path, model: Backbone, name: str | None, columns: Mapping[str, str] | None, *, boxed: bool = False
) -> TextTask | None:
    """The named task of a table of texts, or its only one; None where a model of pictures gets another input.

    Args:
        boxed: whether a detector's boxes are given as well.

    Raises:
        DataError: the labels are not of the kind that the model reads, or there is no such task.
    """
    from wildpdiff.texts import TextTask, is_text_table, read_text_suite

    if not is_text_table(table, columns):
        if not model.image_size:
            raise DataError(
                f"{model.name} reads no pictures, and {table} is no table with the columns text,label,task."
            )
        return None
    if boxed or model.image_size:
        what = f"{model.name} reads" if model.image_size else "--boxes are of"
        raise DataError(f"{what} pictures, and {table} is a table of texts. Give labelled pictures.")
    suite = read_text_suite(table, columns=columns, classes=model.classes, unseen=0, learning=False)
    for sentence in suite.remarks:
        remark(sentence)
    if name is None and len(suite.all_tasks) != 1:
        raise DataError(f"{suite.name} has {len(suite.all_tasks)} tasks. Name one by --task.")
    found = suite.all_tasks[0] if name is None else options.find_task(suite, name)
    assert isinstance(found, TextTask)
    return found


def delivered(adapter: Adapter) -> Delivered:
    """An adapter with what its provenance has on its source and trust."""
    from wildpdiff.prediction import Delivered

    source = adapter.provenance.get("source")
    trust = adapter.provenance.get("trust")
    value = trust.get("value") if isinstance(trust, dict) else None
    kind: Any = next((name for name in ("generated", "pretrained") if str(source).startswith(name)), "adapter")
    return Delivered(adapter, kind, float(value) if isinstance(value, int | float) else None)


@dataclass(frozen=True)
class Deliveries:
    """A generator with its trust, which makes each task's adapter."""

    generator: Generator
    trust: TrustModel | None
    least: float | None
    seed: int

    def deliver(self, task: Task) -> Delivered:
        """The adapter for a task, or the pretrained model where it is not trusted or nothing describes the task."""
        from wildpdiff.prediction import Delivered
        from wildpdiff.tasks.task import title_of

        # Of a copy, whose images are forgotten: those of all cameras would fill the memory.
        description = self._known(copy.copy(task).description)
        try:
            self.generator.conditions.encode(description)
        except DescriptionError as error:
            remark(f"{title_of(task)}: {error} The pretrained model is used there.")
            return Delivered(None, "pretrained")
        (adapter,) = self.generator.sample(description, 1, self.seed)
        if self.trust is None:
            return delivered(adapter)
        report = self.trust.assess(adapter, description, min_trust=self.least)
        given = delivered(self.trust.delivered(adapter, description, report))
        return replace(given, source=given.source if report.use_generated else "pretrained", trust=report.trust)

    def _known(self, description: Description) -> Description:
        """The description with the metadata that the generator reads, under its names, whatever their spelling."""
        from wildpdiff.tables.columns import name_key

        encoder = self.generator.conditions.metadata_encoder
        if description.metadata is None or encoder is None:
            return description
        names = {name_key(name): name for name in encoder.schema.names}
        metadata = {
            names[name_key(key)]: value for key, value in description.metadata.items() if name_key(key) in names
        }
        return replace(description, metadata=metadata or None)
