"""The classifier inside an adapter: the saved module that gives the logits."""

from __future__ import annotations

from wildpdiff.adapters.adapter import Adapter
from wildpdiff.adapters.spec import PEFT_PREFIX
from wildpdiff.errors import AdapterMismatchError, DataError


def classifier_of(adapter: Adapter, use: str, *, with_weight: bool = False) -> tuple[str, str]:
    """Names of the weight "classes f" and of the bias "classes" of the last saved module with one value a class.

    Args:
        use: what changes it, for errors.
        with_weight: whether the weight is needed, too.

    Raises:
        DataError: the outputs are no classes.
        AdapterMismatchError: no saved module has them.
    """
    config, shapes = adapter.config, {name: tuple(value.shape) for name, value in adapter.tensors.items()}
    count = len(config.classes)
    if not count:
        raise DataError(
            f"The outputs of backbone {config.backbone!r} are no classes, of which the {use} is. Leave it out."
        )
    for module in reversed(config.modules_to_save):
        weight, bias = f"{PEFT_PREFIX}{module}.weight", f"{PEFT_PREFIX}{module}.bias"
        matrix = shapes.get(weight, ())
        if shapes.get(bias) == (count,) and (not with_weight or (len(matrix) == 2 and matrix[0] == count)):
            return weight, bias
    saved = ", ".join(config.modules_to_save) or "none"
    raise AdapterMismatchError(
        f"The adapters of backbone {config.backbone!r} hold no classifier with a {'weight and ' * with_weight}bias for "
        f"its {count} classes (modules saved whole: {saved}), which the {use} changes. Name the classifier in the LoRA "
        "setting's modules_to_save, or leave the method out."
    )
