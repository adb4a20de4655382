"""The recipes of the shipped models are recipes."""

from pathlib import Path

import pytest

from fpnkit.settings import from_recipe
from fpnkit.training.recipe import TrainConfig

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.json"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_can_be_read(path):
    assert from_recipe(TrainConfig(), path).model == "cascade_rcnn_lite2_fpn"
