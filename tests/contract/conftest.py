"""The chain of every kind of problem, made once."""

import pytest

from problems import PROBLEMS, Chain, chain_of


@pytest.fixture(scope="session", params=PROBLEMS)
def chain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    return chain_of(request.param, tmp_path_factory.mktemp("chain"))
