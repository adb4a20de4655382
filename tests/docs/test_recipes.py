"""The recipes of the shipped models are recipes, of the models that were shipped."""

from pathlib import Path

import pytest

from fpnkit.training.choice import read_recipe
from fpnkit.weights import InitialWeights

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.json"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_can_be_read(path):
    config, spec, weights = read_recipe(path)
    shipped = InitialWeights.parse(path.stem).spec
    assert (spec.backbone, spec.pyramid, spec.rpn, spec.roi, spec.cascade) == (
        shipped.backbone,
        shipped.pyramid,
        shipped.rpn,
        shipped.roi,
        shipped.cascade,
    )
    assert config.epochs
    assert weights in ("timm", "coco80")
