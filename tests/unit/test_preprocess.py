"""Images to network input, and boxes back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms.functional import normalize

from fpnkit.data.pixels import pad, resize, restore
from fpnkit.data.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess, PreprocessConfig
from fpnkit.errors import ConfigError
from fpnkit.structures import ImageBatch


def preprocess(short_side: int = 800, long_side: int = 1333, **changes) -> Preprocess:
    numbers = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), **changes}
    return Preprocess(PreprocessConfig(short_side=short_side, long_side=long_side, **numbers))


def restored(batch: ImageBatch, index: int, *boxes: list[float]) -> np.ndarray:
    """Boxes in an image of a batch, brought to its original's pixels."""
    found = {"boxes_xyxy": np.array(boxes, dtype=np.float32)}
    made = restore(found, batch.sizes_hw[index].tolist(), batch.original_hw[index].tolist())
    assert made["boxes_xyxy"].dtype == np.float32
    return made["boxes_xyxy"]


@pytest.mark.parametrize(
    ("given", "resized"),
    [
        ((480, 640), (800, 1066)),
        ((640, 480), (1066, 800)),
        ((600, 1200), (666, 1333)),
        ((800, 1333), (800, 1333)),
        ((1600, 1600), (800, 800)),
        ((97, 97), (800, 800)),
        ((51, 153), (444, 1333)),
        ((1, 1), (800, 800)),
        ((1, 5000), (1, 1333)),
        ((5000, 1), (1333, 1)),
    ],
)
def test_sizes_by_hand(given, resized):
    assert preprocess().resized_hw(*given) == resized


@pytest.mark.parametrize(("short", "long"), [(800, 1333), (480, 640), (512, 512)])
def test_one_side_is_exactly_as_configured(short, long):
    resized = preprocess(short, long).resized_hw
    for given in range(1, 1500, 7):
        assert min(resized(given, given)) == short
        assert max(resized(given, 3 * given)) == long


def test_padding_goes_to_the_next_multiple_at_the_right_and_bottom():
    batch = preprocess(40, 100)([torch.full((3, 40, 50), 255, dtype=torch.uint8)])
    assert batch.images.shape == (1, 3, 64, 64)
    assert batch.sizes_hw.tolist() == [[40, 50]]
    assert batch.original_hw.tolist() == [[40, 50]]
    assert (batch.images[0, :, :40, :50] == 1).all()
    assert not batch.images[0, :, 40:].any()
    assert not batch.images[0, :, :, 50:].any()


def test_an_exact_multiple_is_not_padded():
    assert preprocess(64, 64)([torch.zeros(3, 64, 64, dtype=torch.uint8)]).images.shape == (1, 3, 64, 64)
    assert preprocess(50, 70, pad_to=1)([torch.zeros(3, 50, 70, dtype=torch.uint8)]).images.shape == (1, 3, 50, 70)


def test_a_batch_is_as_large_as_its_largest_sides():
    tall, wide = torch.zeros(3, 100, 40, dtype=torch.uint8), torch.zeros(3, 40, 90, dtype=torch.uint8)
    batch = preprocess(40, 100)([tall, wide])
    assert batch.images.shape == (2, 3, 128, 96)
    assert batch.sizes_hw.tolist() == [[100, 40], [40, 90]]


def test_an_image_does_not_depend_on_its_batch():
    images = [torch.randint(0, 256, (3, *size), dtype=torch.uint8) for size in ((30, 60), (50, 50))]
    both, alone = preprocess(32, 64)(images), preprocess(32, 64)(images[:1])
    assert torch.equal(both.images[0, :, :32, :64], alone.images[0, :, :32, :64])
    assert torch.equal(both.sizes_hw[0], alone.sizes_hw[0])


def test_normalisation_by_hand():
    image = torch.tensor([255, 0, 51], dtype=torch.uint8).reshape(3, 1, 1).expand(3, 32, 32)
    pixel = preprocess(32, 32, mean=IMAGENET_MEAN, std=IMAGENET_STD)([image]).images[0, :, 0, 0]
    wanted = [(1 - 0.485) / 0.229, (0 - 0.456) / 0.224, (0.2 - 0.406) / 0.225]
    torch.testing.assert_close(pixel, torch.tensor(wanted))


def test_input_is_not_changed():
    image = torch.randint(0, 256, (3, 20, 30), dtype=torch.uint8)
    before = image.clone()
    preprocess(32, 64)([image])
    assert torch.equal(image, before)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (2, 3)])
def test_tiny_and_extreme_images(size):
    batch = preprocess(48, 64)([torch.full((3, *size), 255, dtype=torch.uint8)])
    height, width = batch.sizes_hw[0].int().tolist()
    assert 1 <= height <= 64
    assert 1 <= width <= 64
    torch.testing.assert_close(batch.images[0, :, :height, :width], torch.ones(3, height, width))
    assert restored(batch, 0, [0.0, 0.0, width, height]).tolist() == [[0, 0, size[1], size[0]]]


def test_shrinking_smooths_only_with_antialias():
    stripes = torch.zeros(3, 64, 64, dtype=torch.uint8)
    stripes[:, :, ::4] = 255
    smooth = preprocess(16, 16).resize(stripes)
    sharp = preprocess(16, 16, antialias=False).resize(stripes)
    assert smooth[:, 2:-2, 2:-2].float().std() < 1
    assert sharp.unique().tolist() == [0]


@pytest.mark.parametrize("size", [(37, 53), (53, 37), (11, 90), (64, 64), (300, 200)])
def test_restore_is_the_inverse_of_resizing(size):
    height, width = size
    x1, y1, x2, y2 = round(width * 0.25), round(height * 0.25), round(width * 0.75), round(height * 0.75)
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    image[:, y1:y2, x1:x2] = 255
    batch = preprocess(400, 900)([image])
    rows, columns = torch.where(batch.images[0, 0, : int(batch.sizes_hw[0, 0]), : int(batch.sizes_hw[0, 1])] > 0)
    found = [float(v) for v in (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)]
    np.testing.assert_allclose(restored(batch, 0, found)[0], [x1, y1, x2, y2], atol=1.0)


def test_restore_takes_the_scale_of_its_own_image():
    images = [torch.zeros(3, 50, 100, dtype=torch.uint8), torch.zeros(3, 400, 200, dtype=torch.uint8)]
    batch = preprocess(100, 200)(images)
    box = [10.0, 20.0, 30.0, 40.0]
    assert restored(batch, 0, box).tolist() == [[5, 10, 15, 20]]
    assert restored(batch, 1, box).tolist() == [[20, 40, 60, 80]]


def test_restore_stays_inside_the_image():
    batch = preprocess(100, 200)([torch.zeros(3, 50, 100, dtype=torch.uint8)])
    assert restored(batch, 0, [-9.0, -9.0, 999.0, 999.0]).tolist() == [[0, 0, 100, 50]]


def test_restore_goes_by_the_endings_of_names():
    found = {
        "boxes_xyxy": np.array([[2.0, 2.0, 4.0, 4.0]], dtype=np.float32),
        "centres_xy": np.array([[3.0, 60.0]], dtype=np.float32),
        "corners_xy": np.array([[[1.0, 2.0], [3.0, 4.0]]], dtype=np.float32),
        "scores": np.array([0.5], dtype=np.float32),
        "labels": np.array([3]),
        "sides_wh": np.array([[7.0, 9.0]], dtype=np.float32),
    }
    before = {name: values.copy() for name, values in found.items()}
    made = restore(found, (100, 200), (50, 400))
    assert list(made) == list(found)
    assert made["boxes_xyxy"].tolist() == [[4, 1, 8, 2]]
    assert made["centres_xy"].tolist() == [[6, 30]]
    assert made["corners_xy"].tolist() == [[[2, 1], [6, 2]]]
    for name in ("scores", "labels", "sides_wh"):
        assert made[name] is found[name]
    assert restore({"centres_xy": np.array([[-1.0, 999.0]])}, (100, 200), (50, 400))["centres_xy"].tolist() == [[0, 50]]
    assert all(np.array_equal(found[name], before[name]) for name in found)
    nothing = restore({name: values[:0] for name, values in found.items()}, (100, 200), (50, 400))
    assert {name: values.shape for name, values in nothing.items()} == {
        name: (0, *values.shape[1:]) for name, values in found.items()
    }


def test_arrays_and_tensors_make_the_same_batch():
    array = np.random.default_rng(0).integers(256, size=(37, 53, 3), dtype=np.uint8)
    before = array.copy()
    of_array = preprocess(40, 64)([array])
    of_tensor = preprocess(40, 64)([torch.from_numpy(array).permute(2, 0, 1)])
    assert torch.equal(of_array.images, of_tensor.images)
    assert of_array.original_hw.tolist() == of_tensor.original_hw.tolist() == [[37, 53]]
    assert np.array_equal(array, before)
    frozen = array.copy()
    frozen.flags.writeable = False
    assert np.array_equal(resize(frozen, (20, 30), antialias=True), resize(array, (20, 30), antialias=True))


def test_padding_of_arrays():
    small, large = np.full((1, 2, 3), 7, dtype=np.uint8), np.full((3, 1, 3), 9, dtype=np.uint8)
    batch = pad([small, large])
    assert batch.shape == (2, 3, 2, 3)
    assert batch[0, :, :, 0].tolist() == [[7, 7], [0, 0], [0, 0]]
    assert batch[1, :, :, 0].tolist() == [[9, 0]] * 3
    assert pad([small[:, :1]]).shape == (1, 2, 2, 3)  # exporters take sides of 1 for constants
    assert pad([small], (4, 5)).shape == (1, 4, 5, 3)


def test_a_limit_of_height_and_width_is_kept_with_the_shape():
    config = preprocess(100, 200).config
    assert config.resized_hw(50, 100) == (100, 200)
    assert config.resized_hw(50, 100, within=(100, 150)) == (75, 150)
    assert config.resized_hw(50, 100, within=(60, 300)) == (60, 120)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"short_side": 0}, "expected 1 <= short_side <= long_side, got 0 and 1333"),
        ({"short_side": 900, "long_side": 800}, "expected 1 <= short_side <= long_side, got 900 and 800"),
        ({"std": (1, 0, 1)}, r"mean and std need three .*values, std above 0, got .* and \(1, 0, 1\)"),
        ({"mean": (0.5, 0.5, float("nan"))}, "three finite values"),
        ({"mean": (0.5,)}, r"mean and std need three .*values.*got \(0.5,\)"),
        ({"pad_to": 0}, "pad_to must be 1 or more, got 0"),
    ],
)
def test_bad_configurations_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        preprocess(**changes)


def test_normalised_pixels_are_those_of_torchvision_with_zeros_around_them():
    ready = preprocess(60, 90, pad_to=32)
    images = [torch.randint(256, (3, *size), dtype=torch.uint8) for size in ((60, 90), (40, 50))]
    pixels = ready.pixels(images, [(60, 90), (40, 50)])
    assert pixels.pixels.dtype == torch.uint8
    assert pixels.pixels.shape == (2, 64, 96, 3)
    made = ready.normalise(pixels).images
    assert made.shape == (2, 3, 64, 96)
    assert made.is_contiguous(memory_format=torch.channels_last)
    for image, each in zip(images, made, strict=True):
        height, width = image.shape[1:]
        wanted = normalize(image.float() / 255, ready.config.mean, ready.config.std)
        torch.testing.assert_close(each[:, :height, :width], wanted)
        assert each[:, height:].abs().sum() == each[:, :, width:].abs().sum() == 0
