"""Objects pasted from one image into another: pixels inside their outline alone, boxes that follow, what is covered."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from records import annotated_object

from fpnkit.data.annotated import AnnotatedImages, Record
from fpnkit.data.augment import Augment, AugmentConfig, CopyPaste
from fpnkit.data.loader import make_training_loader
from fpnkit.data.outlines import Polygons, RunLengths
from fpnkit.data.preprocess import Preprocess, PreprocessConfig

SIDE = 64
STILL = AugmentConfig(flip=0.0, scale=(1.0, 1.0), crop=SIDE, paste=1.0)
TRIANGLE = [10.0, 10.0, 40.0, 10.0, 10.0, 40.0]


def record(tmp_path, name: str, colour: str, *, polygon=TRIANGLE, crowd=False, box=(10.0, 10.0, 40.0, 40.0)) -> Record:
    Image.new("RGB", (SIDE, SIDE), colour).save(tmp_path / f"{name}.png")
    outline = Polygons((tuple(polygon),)) if polygon else RunLengths((SIDE, SIDE), (0, SIDE * SIDE))
    only = annotated_object(*box, label=2, crowd=crowd, outline=outline)
    return Record(image_id=1, path=tmp_path / f"{name}.png", width=SIDE, height=SIDE, objects=(only,))


def dataset(*records: Record) -> AnnotatedImages:
    return AnnotatedImages(records, ("a", "b", "c"), (1, 2, 3), records[0].path)


def pasted(data: AnnotatedImages, boxes: list[list[float]], *, crowd: bool = False, config=STILL):
    paste = CopyPaste(data, Augment(config, fill=(0, 0, 0)), config.paste)
    black = torch.zeros(3, SIDE, SIDE, dtype=torch.uint8)
    found = torch.tensor(boxes).reshape(-1, 4)
    return paste(black, found, torch.zeros(len(found), dtype=torch.int64), torch.full((len(found),), crowd))


def test_pixels_inside_the_outline_come_with_their_box_and_label(tmp_path):
    image, boxes, labels, crowd = pasted(dataset(record(tmp_path, "donor", "white")), [[45.0, 45.0, 60.0, 60.0]])
    rows, columns = np.mgrid[:SIDE, :SIDE]
    inside = torch.from_numpy((rows >= 11) & (columns >= 11) & (rows + columns <= 48))
    outside = torch.from_numpy((rows < 10) | (columns < 10) | (rows + columns > 51))
    assert (image[:, inside] == 255).all()
    assert (image[:, outside] == 0).all()
    assert boxes.tolist() == [[45, 45, 60, 60], [10, 10, 40, 40]]
    assert labels.tolist() == [0, 2]
    assert crowd.tolist() == [False, False]


@pytest.mark.parametrize(("box", "stays"), [([12.0, 12.0, 20.0, 20.0], False), ([12.0, 12.0, 45.0, 45.0], True)])
def test_objects_that_are_covered_go_unless_they_are_crowds(tmp_path, box, stays):
    data = dataset(record(tmp_path, "donor", "white"))
    _, boxes, *_ = pasted(data, [box])
    assert (box in boxes.tolist()) is stays
    _, boxes, *_ = pasted(data, [box], crowd=True)
    assert box in boxes.tolist()


def test_only_outlined_objects_that_are_no_crowds_are_pasted(tmp_path):
    for donor in (record(tmp_path, "run lengths", "white", polygon=None), record(tmp_path, "x", "white", crowd=True)):
        image, boxes, *_ = pasted(dataset(donor), [[1.0, 1.0, 9.0, 9.0]])
        assert not image.any()
        assert len(boxes) == 1


def test_the_chance_is_kept(tmp_path):
    data = dataset(record(tmp_path, "donor", "white"))
    torch.manual_seed(0)
    config = AugmentConfig(flip=0.0, scale=(1.0, 1.0), crop=SIDE, paste=0.3)
    changed = sum(bool(pasted(data, [[1.0, 1.0, 9.0, 9.0]], config=config)[0].any()) for _ in range(200))
    assert 40 <= changed <= 80


def test_masks_move_with_flip_scale_and_crop(tmp_path):
    """White objects on black: after any change, white pixels lie inside the box that comes with them."""
    donor = record(tmp_path, "donor", "black")
    picture = Image.new("RGB", (SIDE, SIDE))
    picture.paste("white", (10, 10, 40, 40))
    picture.save(donor.path)
    config = AugmentConfig(flip=0.5, scale=(0.5, 2.0), crop=SIDE, paste=1.0)
    for seed in range(30):
        torch.manual_seed(seed)
        image, boxes, *_ = pasted(dataset(donor), [], config=config)
        rows, columns = torch.where(image[0] > 127)
        if not len(boxes):
            assert not len(rows)
            continue
        left, top, right, bottom = boxes[0].tolist()
        assert columns.min() >= left - 1.5
        assert columns.max() + 1 <= right + 1.5
        assert rows.min() >= top - 1.5
        assert rows.max() + 1 <= bottom + 1.5


def test_a_loader_pastes_the_same_whatever_loads_it(tmp_path):
    data = dataset(*(record(tmp_path, str(shade), f"rgb({shade},{shade},{shade})") for shade in (50, 150, 250)))
    preprocess = Preprocess(PreprocessConfig(short_side=64, long_side=64, mean=(0.0,) * 3, std=(1.0,) * 3))
    batches = []
    for workers in (0, 2):
        loader, _ = make_training_loader(data, preprocess, STILL, seed=3, batch_size=3, workers=workers)
        ((batch, targets, _),) = list(loader)
        batches.append((batch.pixels, targets.boxes_xyxy))
        assert any(len(image.unique()) == 2 for image in batch.pixels)
    assert all(torch.equal(a, b) for a, b in zip(*batches, strict=True))
