"""Checks that suite, zoos, backbone, generators and models of trust are of one run."""

from __future__ import annotations

from collections.abc import Sequence

from wildpdiff.backbones.backbone import Backbone
from wildpdiff.errors import ArtifactError
from wildpdiff.generator import Generator
from wildpdiff.tasks.task import Group, Suite
from wildpdiff.trust.model import TrustModel
from wildpdiff.zoo.store import Zoo


def check_consistency(
    suite: Suite,
    backbone: Backbone,
    zoo: Zoo,
    reference: Zoo | None,
    generators: Sequence[Generator],
    trust: Sequence[TrustModel] = (),
) -> None:
    """Refuse parts of several runs; models of trust are in the order of their generators.

    Raises:
        ArtifactError: a zoo is of other tasks, of another suite or of another backbone, a generator was fitted to
            another zoo, or a model of trust was calibrated for another generator.
    """
    _check_zoo(suite, backbone, zoo, "seen")
    if reference is not None:
        _check_zoo(suite, backbone, reference, "unseen")
    for generator in generators:
        fitted = generator.training.get("zoo")
        if fitted != zoo.plan.fingerprint:
            raise ArtifactError(
                f"Generator {generator.fingerprint[:12]} was fitted to zoo {str(fitted)[:12]}; the one in {zoo.folder} "
                f"is {zoo.plan.fingerprint[:12]}. They do not belong together: give the zoo that the generator was "
                "fitted to, or fit it again."
            )
    for model, generator in zip(trust, generators, strict=False):
        if model.generator and model.generator != generator.fingerprint:
            raise ArtifactError(
                f"A model of trust is of generator {model.generator[:12]}; its generator here is "
                f"{generator.fingerprint[:12]}. They do not belong together: calibrate trust again."
            )


def _check_zoo(suite: Suite, backbone: Backbone, zoo: Zoo, group: Group) -> None:
    """Refuse a zoo that was not built on exactly these tasks and this backbone; raises :class:`ArtifactError`."""
    names = {task.name for task in suite.tasks(group)}
    if zoo.plan.suite != suite.fingerprint or set(zoo.tasks) != names:
        raise ArtifactError(
            f"The zoo in {zoo.folder} was not built on the {group} tasks of this suite: they do not belong together. "
            "Give the same --suite, seed and -o options as for the zoo, and zoos of the right groups."
        )
    if zoo.plan.adapter.backbone_hash != backbone.backbone_hash:
        raise ArtifactError(
            f"The zoo in {zoo.folder} was built on the backbone {zoo.plan.adapter.backbone!r} with weights "
            f"{zoo.plan.adapter.backbone_hash[:12]}; the one given is {backbone.name!r} with "
            f"{backbone.backbone_hash[:12]}. They do not belong together: give the zoo's backbone."
        )
