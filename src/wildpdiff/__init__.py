"""wildpdiff: generate the adapters of new tasks from descriptions without labels.

The names below are the public table of contents. Each is imported when it is first used, so that ``import wildpdiff``
takes no time and loads no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wildpdiff import errors
    from wildpdiff.adapters.adapter import Adapter
    from wildpdiff.backbones.backbone import Backbone, LoraSpec
    from wildpdiff.backbones.registry import load_backbone
    from wildpdiff.camera_traps.registry import load_suite
    from wildpdiff.fit import GeneratorConfig, fit_generator
    from wildpdiff.generator import Generator
    from wildpdiff.growth import UpdatedGenerator, update_generator
    from wildpdiff.prediction import predict
    from wildpdiff.source import Source
    from wildpdiff.tasks.description import Description, MetadataField, MetadataSchema
    from wildpdiff.tasks.task import Suite, Task
    from wildpdiff.zoo.build import build_zoo
    from wildpdiff.zoo.steps import FinetuneConfig
    from wildpdiff.zoo.store import Zoo

__all__ = [
    "Adapter",
    "Backbone",
    "Description",
    "FinetuneConfig",
    "Generator",
    "GeneratorConfig",
    "LoraSpec",
    "MetadataField",
    "MetadataSchema",
    "Source",
    "Suite",
    "Task",
    "UpdatedGenerator",
    "Zoo",
    "build_zoo",
    "errors",
    "fit_generator",
    "load_backbone",
    "load_suite",
    "predict",
    "update_generator",
]

_MODULES = {
    "Adapter": "wildpdiff.adapters.adapter",
    "Backbone": "wildpdiff.backbones.backbone",
    "Description": "wildpdiff.tasks.description",
    "FinetuneConfig": "wildpdiff.zoo.steps",
    "Generator": "wildpdiff.generator",
    "GeneratorConfig": "wildpdiff.fit",
    "LoraSpec": "wildpdiff.backbones.backbone",
    "MetadataField": "wildpdiff.tasks.description",
    "MetadataSchema": "wildpdiff.tasks.description",
    "Source": "wildpdiff.source",
    "Suite": "wildpdiff.tasks.task",
    "Task": "wildpdiff.tasks.task",
    "UpdatedGenerator": "wildpdiff.growth",
    "Zoo": "wildpdiff.zoo.store",
    "build_zoo": "wildpdiff.zoo.build",
    "fit_generator": "wildpdiff.fit",
    "load_backbone": "wildpdiff.backbones.registry",
    "load_suite": "wildpdiff.camera_traps.registry",
    "predict": "wildpdiff.prediction",
    "update_generator": "wildpdiff.growth",
}


def __getattr__(name: str) -> Any:
    if name == "errors":
        return import_module("wildpdiff.errors")
    if name not in _MODULES:
        raise AttributeError(f"module 'wildpdiff' has no attribute {name!r}")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
