"""The registry of denoising networks: by name, from their stored configuration, and back from storage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from wildpdiff.diffusion.denoiser import DenoiserNetwork
from wildpdiff.diffusion.residual import ResidualDenoiser
from wildpdiff.diffusion.unet import UNet1d
from wildpdiff.errors import ArtifactError

NetworkName = Literal["residual", "unet"]

NETWORKS: dict[str, type[DenoiserNetwork]] = {"residual": ResidualDenoiser, "unet": UNet1d}
"""Every network by name."""


def build_denoiser(config: Mapping[str, Any]) -> DenoiserNetwork:
    """A network with fresh weights from a ``config`` as ``DenoiserNetwork.config`` gives it.

    Raises:
        ArtifactError: the network's name or an argument is unknown.
    """
    arguments = dict(config)
    name = arguments.pop("network", None)
    if name not in NETWORKS:
        raise ArtifactError(f"The stored network is {name!r}; known are {sorted(NETWORKS)}.")
    try:
        return NETWORKS[name](**arguments)
    except (TypeError, KeyError) as error:
        raise ArtifactError(f"The stored configuration of network {name!r} is unreadable: {error}.") from error


def restore_denoiser(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> DenoiserNetwork:
    """The network whose ``config`` and ``state_dict`` these are, in evaluation mode.

    Raises:
        ArtifactError: the tensors do not belong to the configuration.
    """
    model = build_denoiser(config)
    try:
        model.load_state_dict(dict(state))
    except RuntimeError as error:
        raise ArtifactError(f"The stored weights do not fit their configuration: {error}") from error
    return model.eval()
