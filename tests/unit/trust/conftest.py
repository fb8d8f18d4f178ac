import pytest
from eighteen_tasks import CONFIG, DESCRIPTIONS, TASKS, Toy

import toys
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.fit import fit_generator
from wildpdiff.zoo.build import build_zoo
from wildpdiff.zoo.features import FeatureCache
from wildpdiff.zoo.store import Zoo
from wildpdiff.zoo.training_set import TrainingSet


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory, toy_backbone: Backbone) -> Zoo:
    folder = tmp_path_factory.mktemp("trust") / "zoo"
    return build_zoo(folder, toy_backbone, TASKS, "toy-trust", config=toys.FINETUNE, per_shard=18)


@pytest.fixture(scope="session")
def toy(zoo: Zoo, toy_backbone: Backbone) -> Toy:
    features = FeatureCache(toy_backbone, TASKS, 8)
    fitted = fit_generator(TrainingSet(zoo, DESCRIPTIONS, toys.SCHEMA, toy_backbone, features), CONFIG, seed=1)
    return Toy(fitted.generator, zoo, features)
