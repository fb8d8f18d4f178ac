"""The plan of a zoo: everything that decides its bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wildpdiff.adapters.adapter import AdapterConfig
from wildpdiff.artifact import SCHEMA_VERSION
from wildpdiff.disk import content_hash, json_bytes
from wildpdiff.errors import ArtifactError, SchemaVersionError

PLAN = "plan.json"


@dataclass(frozen=True)
class ZooPlan:
    """Everything that decides a zoo's bytes.

    Attributes:
        adapter: where the adapters attach; names the backbone and its weights.
        suite: fingerprint of the suite.
        tasks: task names in order.
        per_shard: tasks a shard (they are fine-tuned together).
        finetune: the fine-tuning's configuration as JSON values.
        seed: the zoo's seed.
        recipe: how ``finetune`` was chosen, see :meth:`wildpdiff.zoo.recipe.ChosenRecipe.to_json`; None where it was
            given.
    """

    adapter: AdapterConfig
    suite: str
    tasks: tuple[str, ...]
    per_shard: int
    finetune: Mapping[str, Any]
    seed: int
    recipe: Mapping[str, Any] | None = None

    @property
    def shards(self) -> tuple[tuple[str, ...], ...]:
        """The tasks of each shard."""
        return tuple(self.tasks[i : i + self.per_shard] for i in range(0, len(self.tasks), self.per_shard))

    def to_json(self) -> dict[str, Any]:
        """The plan as plain JSON values."""
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": "zoo",
            "adapter": self.adapter.to_json(),
            "suite": self.suite,
            "tasks": list(self.tasks),
            "per_shard": self.per_shard,
            "finetune": dict(self.finetune),
            "seed": self.seed,
            **({} if self.recipe is None else {"recipe": dict(self.recipe)}),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], path: Path) -> ZooPlan:
        """The inverse of :meth:`to_json`; ``path`` is named in errors."""
        if not isinstance(data, dict) or data.get("kind") != "zoo":
            raise ArtifactError(f"{path} is not the plan of a zoo. Check the path.")
        if not isinstance(data.get("schema_version"), int):
            raise ArtifactError(f"{path} has no schema version. Build the zoo again.")
        if data["schema_version"] > SCHEMA_VERSION:
            raise SchemaVersionError(
                f"{path} has schema version {data['schema_version']}; this package reads up to {SCHEMA_VERSION}. "
                "Update wildpdiff, or build the zoo again."
            )
        try:
            plan = cls(
                AdapterConfig.from_json(data["adapter"]),
                data["suite"],
                tuple(data["tasks"]),
                data["per_shard"],
                dict(data["finetune"]),
                data["seed"],
                None if data.get("recipe") is None else dict(data["recipe"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(f"{path} is not a whole plan of a zoo ({error}). Build the zoo again.") from None
        numbers = all(isinstance(value, int) and value >= 0 for value in (plan.per_shard - 1, plan.seed))
        if not numbers or not plan.tasks or not all(isinstance(name, str) for name in (plan.suite, *plan.tasks)):
            raise ArtifactError(f"{path} is not a whole plan of a zoo: its values are of wrong kinds. Build it again.")
        if "structured" in plan.finetune:
            raise ArtifactError(
                f"{path}: the tasks were fine-tuned in one shared basis, which this version does not have. Build the "
                "zoo again without --structured."
            )
        return plan

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the plan."""
        return content_hash(json_bytes(self.to_json()))
