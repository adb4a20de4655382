"""Order, repeatability, and boxes that move with their pixels."""

from __future__ import annotations

import signal
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from records import annotated_object

from fpnkit.data.annotated import AnnotatedImages, Record
from fpnkit.data.augment import Augment, AugmentConfig
from fpnkit.data.loader import BatchSampler, DetectionDataset, make_loader, pad_targets
from fpnkit.data.preprocess import Preprocess, PreprocessConfig
from fpnkit.errors import ConfigError, DataError

PREPROCESS = Preprocess(PreprocessConfig(short_side=64, long_side=96, mean=(0.0,) * 3, std=(1.0,) * 3))
BOX = (10.0, 20.0, 34.0, 44.0)


def painted(path, width: int = 80, height: int = 60, boxes=(BOX,), **changes) -> Record:
    """A black image with white rectangles, and its record."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    for x1, y1, x2, y2 in boxes:
        pixels[int(y1) : int(y2), int(x1) : int(x2)] = 255
    Image.fromarray(pixels).save(path)
    objects = tuple(annotated_object(*box, label=label) for label, box in enumerate(boxes))
    return replace(Record(image_id=1, path=path, width=width, height=height, objects=objects), **changes)


@pytest.fixture
def folder(tmp_path) -> AnnotatedImages:
    """Six images of different sizes, the last without objects."""
    sizes = [(80, 60), (60, 80), (100, 50), (48, 48), (72, 64), (64, 64)]
    records = tuple(
        painted(tmp_path / f"{i}.png", *size, boxes=(BOX,) if i < 5 else (), image_id=i) for i, size in enumerate(sizes)
    )
    return AnnotatedImages(records, ("thing",), (1,), tmp_path / "instances.json")


def dataset(records: AnnotatedImages, augment: AugmentConfig | None = None, seed: int = 0) -> DetectionDataset:
    changed = Augment(augment, fill=(0, 0, 0)) if augment else None
    return DetectionDataset(records, PREPROCESS, augment=changed, seed=seed)


def find_rectangle(image: torch.Tensor) -> torch.Tensor:
    """The white rectangle of a (3, H, W) image in 0..255."""
    rows, columns = torch.where(image[0] > 127)
    return torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).float()


def augmented(record: Record, **numbers) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    image = torch.from_numpy(np.array(Image.open(record.path))).movedim(-1, 0)
    return Augment(AugmentConfig(**numbers), fill=(0, 0, 0))(image, record)


def test_order_depends_on_seed_and_epoch_only():
    def order(seed: int, epoch: int) -> list[tuple[int, int]]:
        sampler = BatchSampler(50, seed=seed, shuffle=True, batch_size=10)
        sampler.numbers = range(5 * epoch, 5 * epoch + 5)
        return list(chain.from_iterable(sampler))

    first = order(seed=1, epoch=2)
    torch.manual_seed(99)
    assert order(seed=1, epoch=2) == first
    assert sorted(first) == [(2, index) for index in range(50)]
    assert [index for _, index in order(seed=1, epoch=3)] != [index for _, index in first]
    assert order(seed=2, epoch=2) != first


def test_order_without_shuffling_is_the_files():
    assert list(BatchSampler(4, seed=7, shuffle=False, batch_size=3)) == [[(0, 0), (0, 1), (0, 2)], [(0, 3)]]


def test_drawing_an_order_leaves_the_global_random_state():
    before = torch.get_rng_state()
    list(BatchSampler(50, seed=1, shuffle=True, batch_size=1))
    assert torch.equal(torch.get_rng_state(), before)


def test_resuming_anywhere_gives_the_rest_of_the_same_order():
    whole, rest = (BatchSampler(20, seed=3, shuffle=True, batch_size=3) for _ in range(2))
    whole.numbers, rest.numbers = range(18), range(8, 18)
    assert whole.per_epoch == 6
    assert [{epoch for epoch, _ in batch} for batch in whole] == [{number // 6} for number in range(18)]
    assert list(rest) == list(whole)[8:]
    assert len(rest) == 10


def test_a_resumed_loader_gives_the_remaining_batches(folder):
    augment = AugmentConfig(crop=64)
    loader, _ = make_loader(dataset(folder, augment), batch_size=2, workers=0, shuffle=True)
    whole = [batch.pixels for batch, _, _ in loader]
    loader, sampler = make_loader(dataset(folder, augment), batch_size=2, workers=0, shuffle=True)
    sampler.numbers = range(1, 3)
    rest = [batch.pixels for batch, _, _ in loader]
    assert len(whole) == 3
    assert len(rest) == len(loader) == 2
    assert all(torch.equal(a, b) for a, b in zip(rest, whole[1:], strict=True))


def test_samples_are_the_same_with_and_without_workers(folder):
    batches = []
    for workers in (0, 1, 2, 4):
        torch.manual_seed(workers)
        loader, sampler = make_loader(
            dataset(folder, AugmentConfig(crop=64)), batch_size=2, workers=workers, shuffle=True
        )
        sampler.numbers = range(16, 20)  # of the sixth epoch and the next
        batches.append(list(loader))
    for (batch, targets, records), *others in zip(*batches, strict=True):
        for other, other_targets, other_records in others:
            assert torch.equal(batch.pixels, other.pixels)
            assert torch.equal(targets.boxes_xyxy, other_targets.boxes_xyxy)
            assert records == other_records


def test_a_sample_depends_on_seed_epoch_and_index(folder):
    augment = AugmentConfig(crop=64)
    first = dataset(folder, augment)[0, 0]["image"]
    assert torch.equal(dataset(folder, augment)[0, 0]["image"], first)
    assert not torch.equal(dataset(folder, augment)[1, 0]["image"], first)
    assert not torch.equal(dataset(folder, augment, seed=1)[0, 0]["image"], first)


def test_loading_leaves_every_global_random_state(folder, monkeypatch):
    def refuse(*_):
        raise AssertionError("the accelerator's random state was touched")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", refuse)
    before = torch.get_rng_state()
    dataset(folder, AugmentConfig(crop=64))[0, 0]
    assert torch.equal(torch.get_rng_state(), before)


def test_a_short_last_batch_is_left_out_in_training_only(folder):
    for shuffle, sizes in [(True, [4]), (False, [4, 2])]:
        loader, _ = make_loader(dataset(folder), batch_size=4, workers=0, shuffle=shuffle)
        assert [len(batch) for batch, _, _ in loader] == sizes
    loader, _ = make_loader(dataset(folder), batch_size=16, workers=0, shuffle=True)
    assert [len(batch) for batch, _, _ in loader] == [6]


def test_a_flip_mirrors_boxes_with_pixels(tmp_path):
    record = painted(tmp_path / "a.png", 64, 64)
    image, boxes, left = augmented(record, flip=1.0, scale=(1.0, 1.0), crop=64)
    assert boxes.tolist() == [[30, 20, 54, 44]]
    assert find_rectangle(image).tolist() == [30, 20, 54, 44]
    assert left.tolist() == [0]


@pytest.mark.parametrize("flip", [0.0, 1.0])
@pytest.mark.parametrize("size", [(80, 60), (60, 80), (200, 90)])
def test_scaling_and_cropping_move_boxes_with_pixels(tmp_path, size, flip):
    record = painted(tmp_path / "a.png", *size)
    seen = 0
    for _ in range(20):
        image, boxes, _ = augmented(record, flip=flip, scale=(0.5, 2.0), crop=96)
        assert image.shape == (3, 96, 96)
        if len(boxes):
            seen += 1
            torch.testing.assert_close(boxes[0], find_rectangle(image), atol=1.5, rtol=0)
    assert seen >= 10


def test_objects_cropped_away_are_dropped_with_their_labels(tmp_path):
    boxes = ((0.0, 0.0, 20.0, 20.0), (108.0, 0.0, 128.0, 20.0))
    record = painted(tmp_path / "a.png", 128, 32, boxes=boxes)
    kept = {tuple(augmented(record, flip=0.0, scale=(4.0, 4.0), crop=32)[2].tolist()) for _ in range(20)}
    assert (0,) in kept or (1,) in kept
    assert (0, 1) not in kept


def test_labels_and_crowds_follow_their_boxes(tmp_path, monkeypatch):
    boxes = ((0.0, 0.0, 10.0, 10.0), (10.0, 10.0, 20.0, 20.0), (20.0, 20.0, 30.0, 30.0))
    record = painted(tmp_path / "a.png", 32, 32, boxes=boxes)
    objects = (replace(each, label=5 + number, crowd=number == 1) for number, each in enumerate(record.objects))
    record = replace(record, objects=tuple(objects))
    data = dataset(AnnotatedImages((record,), tuple("abcdefgh"), tuple(range(8)), tmp_path), AugmentConfig(crop=32))
    left = torch.tensor([2, 1])
    data.augment = lambda image, record: (image, torch.tensor(record.boxes_xyxy)[left], left)
    sample = data[0, 0]
    assert sample["labels"].tolist() == [7, 6]
    assert sample["crowd"].tolist() == [False, True]


def test_without_augmentation_boxes_move_with_pixels(folder):
    for index in range(5):
        sample = dataset(folder)[0, index]
        assert min(sample["image"].shape[1:]) == 64 or max(sample["image"].shape[1:]) == 96
        torch.testing.assert_close(sample["boxes"][0], find_rectangle(sample["image"]), atol=1.0, rtol=0)


def test_boxes_follow_each_side_by_itself(tmp_path):
    record = painted(tmp_path / "a.png", 300, 2, boxes=((0.0, 0.0, 300.0, 2.0),))
    sample = dataset(AnnotatedImages((record,), ("thing",), (1,), tmp_path))[0, 0]
    assert sample["image"].shape == (3, 1, 96)
    torch.testing.assert_close(sample["boxes"], torch.tensor([[0.0, 0.0, 96.0, 1.0]]))


@pytest.mark.parametrize("augment", [None, AugmentConfig(crop=64)], ids=["plain", "augmented"])
def test_an_image_without_objects(folder, augment):
    sample = dataset(folder, augment)[0, 5]
    assert sample["boxes"].shape == (0, 4)
    assert sample["labels"].shape == sample["crowd"].shape == (0,)


def test_a_batch_carries_sizes_targets_and_records(folder):
    loader, _ = make_loader(dataset(folder), batch_size=6, workers=0, shuffle=False)
    batch, targets, records = next(iter(loader))
    assert records == list(folder.records)
    assert batch.original_hw.tolist() == [[record.height, record.width] for record in records]
    assert targets.valid.tolist() == [[True]] * 5 + [[False]]


def test_targets_are_padded_to_the_most_objects():
    samples = [
        {"boxes": torch.ones(2, 4), "labels": torch.tensor([4, 5]), "crowd": torch.tensor([False, True]), "seed": 7},
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0).long(), "crowd": torch.zeros(0).bool(), "seed": 8},
        {"boxes": torch.full((1, 4), 7.0), "labels": torch.tensor([6]), "crowd": torch.tensor([False]), "seed": 9},
    ]
    targets = pad_targets(samples)
    assert targets.boxes_xyxy[:, :, 0].tolist() == [[1, 1], [0, 0], [7, 0]]
    assert targets.labels.tolist() == [[4, 5], [0, 0], [6, 0]]
    assert targets.valid.tolist() == [[True, True], [False, False], [True, False]]
    assert targets.crowd.tolist() == [[False, True], [False, False], [False, False]]
    assert targets.seeds.tolist() == [7, 8, 9]
    assert pad_targets(samples[1:2]).boxes_xyxy.shape == (1, 0, 4)


def test_an_image_of_another_size_than_annotated_is_refused(tmp_path):
    record = painted(tmp_path / "a.png", 80, 60)
    wrong = replace(record, width=81)
    with pytest.raises(DataError, match=r"a.png: the image is 80 x 60 pixels, its annotation says 81 x 60"):
        dataset(AnnotatedImages((wrong,), ("thing",), (1,), tmp_path))[0, 0]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_image_is_named_wherever_it_was_loaded(folder, workers):
    wrong = replace(folder.records[2], height=1)
    records = replace(folder, records=(*folder.records[:2], wrong))
    loader, _ = make_loader(dataset(records), batch_size=2, workers=workers, shuffle=False)
    with pytest.raises(DataError, match=r"^[^\n]*2.png: the image is 100 x 50 pixels, [^\n]*$"):
        list(loader)


@dataclass(frozen=True)
class NoteHandlers:
    """In each worker: writes the handler of SIGINT into a file of its own."""

    folder: Path

    def __call__(self, worker: int) -> None:
        (self.folder / str(worker)).write_text(str(signal.getsignal(signal.SIGINT)))


def test_loading_processes_are_prepared_by_their_caller_and_keep_its_signals(folder, tmp_path):
    notes = tmp_path / "notes"
    notes.mkdir()
    loader, _ = make_loader(dataset(folder), batch_size=2, workers=2, shuffle=False, worker_init=NoteHandlers(notes))
    assert len(list(loader)) == 3
    handler = str(signal.getsignal(signal.SIGINT))
    assert {each.name: each.read_text() for each in notes.iterdir()} == {"0": handler, "1": handler}


def test_a_pass_over_the_data_leaves_the_global_random_state(folder):
    loader, _ = make_loader(dataset(folder, AugmentConfig(crop=64)), batch_size=2, workers=0, shuffle=True)
    before = torch.get_rng_state()
    assert len(list(loader)) == 3
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("size", [(400, 1), (1, 400), (1, 1)])
def test_extreme_shapes_can_be_augmented(tmp_path, size):
    width, height = size
    record = painted(tmp_path / "a.png", width, height, boxes=((0.0, 0.0, float(width), float(height)),))
    image, boxes, _ = augmented(record, crop=32)
    assert image.shape == (3, 32, 32)
    assert ((boxes >= 0) & (boxes <= 32)).all()


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"scale": (1.6, 0.8)}, "scale must be two factors above 0, the smaller one first, got 1.6 0.8"),
        ({"crop": 0}, "crop must be 1 or more, got 0"),
        ({"flip": 1.5}, r"flip must lie in 0..1, got 1.5"),
    ],
)
def test_bad_augmentation_is_refused(numbers, message):
    with pytest.raises(ConfigError, match=message):
        AugmentConfig(**numbers)


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_share_the_batches_of_one(processes):
    def batches(rank: int, processes: int) -> list[list[tuple[int, int]]]:
        sampler = BatchSampler(50, seed=3, shuffle=True, batch_size=8, rank=rank, processes=processes)
        sampler.numbers = range(2, 9)
        assert len(sampler) == 7
        return list(sampler)

    shares = [batches(rank, processes) for rank in range(processes)]
    assert [list(chain.from_iterable(parts)) for parts in zip(*shares, strict=True)] == batches(0, 1)


def test_batches_that_cannot_be_shared_are_refused(folder):
    with pytest.raises(ConfigError, match="batch_size 3 cannot be divided among 2 processes"):
        make_loader(dataset(folder), batch_size=3, workers=0, shuffle=True, processes=2)
    with pytest.raises(ConfigError, match="batch_size 8 is more than the 6 images there are"):
        make_loader(dataset(folder), batch_size=8, workers=0, shuffle=True, processes=2)


def test_colours_change_and_boxes_do_not(tmp_path):
    record = painted(tmp_path / "a.png", width=80, height=80, boxes=((10.0, 10.0, 30.0, 40.0),))
    image = torch.full((3, 80, 80), 100, dtype=torch.uint8)
    config = AugmentConfig(colour=0.5, flip=0.0, scale=(1.0, 1.0), crop=80)
    coloured, boxes, _ = Augment(config, fill=(0, 0, 0))(image, record)
    assert coloured.shape == image.shape
    assert not torch.equal(coloured, image)
    assert boxes.tolist() == [list(record.boxes_xyxy[0])]
    with pytest.raises(ConfigError, match=r"colour must lie in 0\.\.1, got 2"):
        AugmentConfig(colour=2)
