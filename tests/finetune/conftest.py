"""The model that the tests of a module share."""

import pytest

from finetune_program import World, make_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("finetune"))
