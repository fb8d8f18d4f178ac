"""Languages of SIB-200 as tasks of a small causal language model: the next token of a sentence.

As in :mod:`wildbench.domains.sib200`, all languages have the same sentences and the published splits, and unseen are
languages drawn at random and all languages of a few scripts. Sentences without labels are training data of a language
model: the methods that are fine-tuned on the sentences of the description alone stand next to the generator.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from wildbench.domains.causal_model import causal_backbone, last_layer, packaged_model, smaller_tokenizer, with_tokens
from wildbench.domains.domain import Domain, in_groups
from wildbench.domains.sentence_settings import GENERATOR as SENTENCES
from wildbench.domains.sib200 import FILE, SibConfig, language_suite, read_languages
from wildbench.methods.few_labels import FewLabelsSource
from wildbench.methods.refined import RefinedSource
from wildbench.methods.renamed import RenamedSource
from wildbench.pipeline import RunInputs
from wildbench.run_folder import Tick
from wildbench.studies.measuring import Further, OpenBenchmark
from wildpdiff.conditional_mean.correction import TaskLossConfig
from wildpdiff.evaluate.results import SourceInfo
from wildpdiff.evaluate.run import Method
from wildpdiff.posterior.decoder import CodeConfig
from wildpdiff.posterior.maximum_a_posteriori import MapConfig
from wildpdiff.refine.runs import RefineConfig
from wildpdiff.refine.starts import Starts
from wildpdiff.tasks.batch import count
from wildpdiff.tasks.dataset import Dataset
from wildpdiff.zoo.features import TaskFeatures
from wildpdiff.zoo.steps import FinetuneConfig

CONFIG = SibConfig(
    seen=36, unseen=8, pretraining=1, scripts=2, train=32, validation=8, test=24, examples=12, labelled=False,
    name="sib200-tokens",
)  # fmt: skip
TOKENS, LENGTH = 2048, 12
MODULES, RANK, ALPHA = ("down_proj",), 8, 64
"""With a fixed A, factors of the attention gain a third of what those of this layer do, at three times the time."""

FINETUNE = FinetuneConfig(steps=60, batch=8, learning_rate=0.1, warmup=6, checkpoints=4, interval=4)
"""Chosen on validation sentences of seven seen languages, also for the few sentences of a description: three times the
rate gains 4 % more of 32 sentences and loses 60 % of 12."""

REFINE = MapConfig(batch=12)
ON_DESCRIPTION = "fine-tuned on the description's sentences"
REFINED = "generated, refined on the description's sentences"


def opened(
    data: Path,
    folder: Path,
    seed: int,
    progress: Tick,
    *,
    config: SibConfig = CONFIG,
    packaged: Any = packaged_model,
    tokens: int = TOKENS,
) -> OpenBenchmark:
    """The suite with the packaged language model, whose tokens are those that its training sentences need most."""
    made = language_suite(read_languages(data / FILE), replace(config, seed=seed))
    model, tokenizer = packaged()
    trained = [task for group in ("seen", "pretraining") for task in made.suite.tasks(group)]
    smaller, rows = smaller_tokenizer(
        tokenizer, [text for task in trained for text in task.data("train").inputs], tokens
    )
    from peft import LoraConfig

    lora = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=last_layer(model, MODULES))
    backbone = causal_backbone(with_tokens(model, rows), smaller, lora, name="SmolLM2-135M-Instruct", length=LENGTH)
    return OpenBenchmark(made.suite, backbone, FINETUNE, in_groups(made.groups), further=on_description)


def on_description(made: RunInputs) -> Further:
    """The sentences of a task's description as training data: from the shared start, and from the generated adapter."""
    known = {task.name: task for group in ("seen", "unseen") for task in made.suite.tasks(group)}

    def sentences(name: str) -> TaskFeatures:
        return TaskFeatures.of_few(name, made.backbone.batch(Dataset(known[name].description.examples)))

    most, seed = max(count(task.description.examples) for task in known.values()), made.zoo.plan.seed
    generator = made.generators[0]
    tuned = FewLabelsSource(
        sentences, made.backbone, made.zoo.initial, labels_per_class=most, config=FINETUNE, seed=seed
    )
    refined = RefinedSource(
        generator, Starts.of_generator(generator), sentences, most, config=RefineConfig(REFINE, FINETUNE), seed=seed
    )
    return [
        (Method(RenamedSource(source, name)), SourceInfo(name, "description", None, note.format(most)))
        for source, name, note in (
            (tuned, ON_DESCRIPTION, "the recipe of fine-tuning on the {} sentences of the description alone"),
            (refined, REFINED, "generated, then the {} sentences of the description under the generator's prior"),
        )
    ]


GENERATOR = replace(
    SENTENCES,
    parts=("metadata", "examples"),
    components=16,
    task_loss=TaskLossConfig(steps=80, tasks=8, images=4, folds=2, evaluate_every=20, patience=2, evaluation_images=8),
    posterior=replace(
        SENTENCES.posterior, tasks=24, images=16, search=MapConfig(steps=12, batch=8, learning_rate=0.25),
        codes=CodeConfig(steps=60, images=4),
    ),
)  # fmt: skip

DOMAIN = Domain(
    "sib200-tokens",
    "Next tokens of sentences in many languages (SIB-200) by a small language model",
    (FILE,),
    opened,
    GENERATOR,
    samples=2,
    seen_tasks=10,
    remarks=(
        "Cross-entropies of languages are not comparable, as their tokens are of other lengths; gains are paired by "
        "language. A language is described by its script and 12 sentences of its training split. To a language model "
        "sentences without labels are training data: the line for fine-tuning on the description's sentences is what "
        "a user gets who trains on them instead of describing with them, that for refining who does both. Every "
        "method has the same 2,048 tokens, which the training sentences of English and the seen languages need most; "
        "rarer words are written in more tokens.",
    ),
)
