"""Batches of images and targets, in an order that depends on the seed alone."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision import tv_tensors
from torchvision.transforms import v2

from ..errors import ConfigError, DataError
from ..structures import ImageBatch, Targets
from .annotated import AnnotatedImages, Record
from .images import read_image
from .preprocess import Preprocess
from .read import wrong_size
from .tensors import to_tensor


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """What training does to its images.

    Attributes:
        flip: chance of a horizontal flip.
        scale: smallest and largest factor on the size at which the image fits into the crop.
        crop: side in pixels of the square that each image is cropped or padded to.
        colour: largest change of brightness, contrast and saturation, as a share; a quarter of it is that of the hue.
        min_visible: objects cropped to less than this share of their area are dropped.
    """

    flip: float = 0.5
    scale: tuple[float, float] = (0.8, 1.6)
    crop: int = 512
    colour: float = 0.0
    min_visible: float = 0.25

    def __post_init__(self) -> None:
        low, high = self.scale
        if not 0 < low <= high < math.inf:
            raise ConfigError(f"scale must be two factors above 0, the smaller one first, got {low} {high}")
        if self.crop < 1:
            raise ConfigError(f"crop must be 1 or more, got {self.crop}")
        for name in ("flip", "min_visible", "colour"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} must lie in 0..1, got {getattr(self, name)}")


class Augment:
    """Flip, scale jitter and crop by torchvision.transforms.v2, and colours where they are asked for.

    Large-scale jitter (arXiv:2012.07177) is `scale=(0.1, 2.0)`.
    """

    def __init__(self, config: AugmentConfig, *, fill: Sequence[int]) -> None:
        size = (config.crop, config.crop)
        self.min_visible = config.min_visible
        self.resize = v2.Compose(
            [v2.RandomHorizontalFlip(config.flip), _ScaleJitter(size, config.scale, antialias=True)]
        )
        strength = (config.colour,) * 3
        self.recolour = v2.ColorJitter(*strength, config.colour / 4) if config.colour else v2.Identity()
        self.crop = v2.RandomCrop(size, pad_if_needed=True, fill=list(fill))

    def __call__(self, image: Tensor, record: Record) -> tuple[Tensor, Tensor, Tensor]:
        """(3, H, W) uint8 and its record -> image, boxes (M, 4), index (M,) of the objects that are left."""
        boxes = torch.tensor(record.boxes_xyxy, dtype=torch.float32).reshape(-1, 4)
        wrapped = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=image.shape[1:])  # type: ignore[call-arg]
        image, before = self.resize(tv_tensors.Image(image), wrapped)
        areas = _areas(before)
        image, after = self.crop(self.recolour(image), before)
        after = v2.functional.clamp_bounding_boxes(after)
        left = torch.where((_areas(after) >= self.min_visible * areas) & (_areas(after) >= 1))[0]
        return image.as_subclass(Tensor), after.as_subclass(Tensor)[left], left


class _ScaleJitter(v2.ScaleJitter):
    """Leaves a pixel of the short side of extreme shapes."""

    def make_params(self, flat_inputs: list) -> dict:
        height, width = super().make_params(flat_inputs)["size"]
        return {"size": (max(1, height), max(1, width))}


class DetectionDataset(Dataset):
    """Decoded, resized images with their boxes in the new pixels.

    Args:
        dataset: checked annotations.
        preprocess: resizing when there is no augmentation.
        augment: for training.
        seed: with the epoch and index, the only source of chance.
    """

    def __init__(
        self, dataset: AnnotatedImages, preprocess: Preprocess, *, augment: Augment | None = None, seed: int = 0
    ) -> None:
        self.dataset = dataset
        self.preprocess = preprocess
        self.augment = augment
        self.seed = seed

    def __len__(self) -> int:
        return len(self.dataset.records)

    def __getitem__(self, key: tuple[int, int]) -> dict:
        """`key` is (epoch, index), so that a worker's random state is the same wherever the image is loaded."""
        epoch, index = key
        record = self.dataset.records[index]
        seed = hash((self.seed, epoch, index)) & 0xFFFFFFFF
        image = to_tensor(read_image(record.path))
        if reason := wrong_size(record, (image.shape[2], image.shape[1])):
            raise DataError(f"{record.path}: {reason}")
        labels, crowd = torch.tensor(record.labels, dtype=torch.int64), torch.tensor(record.crowd, dtype=torch.bool)
        if self.augment:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(seed)  # of the CPU alone
                resized, boxes, left = self.augment(image, record)
            labels, crowd = labels[left], crowd[left]
        else:
            resized = self.preprocess.resize(image)
            scale = torch.tensor([resized.shape[2] / image.shape[2], resized.shape[1] / image.shape[1]]).repeat(2)
            boxes = torch.tensor(record.boxes_xyxy, dtype=torch.float32).reshape(-1, 4) * scale
        original = (image.shape[1], image.shape[2])
        return {
            "image": resized,
            "original": original,
            "boxes": boxes,
            "labels": labels,
            "crowd": crowd,
            "index": index,
            "seed": seed,
        }

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> list[dict] | DataError:
        """A batch of samples, or what is wrong with one: raised in a worker it would come with that one's traceback."""
        try:
            return [self[key] for key in keys]
        except DataError as error:
            return error

    def collate(self, samples: Sequence[dict] | DataError) -> tuple[ImageBatch, Targets, list[Record]] | DataError:
        """Samples -> batch, padded targets, their records."""
        if isinstance(samples, DataError):
            return samples
        batch = self.preprocess.batch([each["image"] for each in samples], [each["original"] for each in samples])
        records = [self.dataset.records[each["index"]] for each in samples]
        return batch, pad_targets(samples), records


def pad_targets(samples: Sequence[dict]) -> Targets:
    """Stack boxes, labels and crowd flags of several images, padded to the most objects, and their seeds."""
    most = max(len(each["labels"]) for each in samples)
    boxes, labels = torch.zeros(len(samples), most, 4), torch.zeros(len(samples), most, dtype=torch.int64)
    valid = torch.zeros(len(samples), most, dtype=torch.bool)
    crowd = torch.zeros(len(samples), most, dtype=torch.bool)
    for row, each in enumerate(samples):
        count = len(each["labels"])
        boxes[row, :count], labels[row, :count] = each["boxes"], each["labels"]
        valid[row, :count], crowd[row, :count] = True, each["crowd"]
    return Targets(boxes, labels, valid, crowd, torch.tensor([each["seed"] for each in samples]))


class EpochSampler(Sampler):
    """Yields (epoch, index) in an order drawn from the seed and epoch; can start in the middle of an epoch.

    Args:
        length: of the data.
        seed: of the order.
        shuffle: or in the data's order.
        batch_size: images that all processes take at a time.
        rank, processes: this one takes the images of its place in each batch, so that together they take the same
            batches as one process alone; a last batch that is not full is left out then.
    """

    def __init__(
        self, length: int, *, seed: int, shuffle: bool, batch_size: int = 1, rank: int = 0, processes: int = 1
    ) -> None:
        self.length = length
        self.seed = seed
        self.shuffle = shuffle
        self.batch_size = batch_size
        self.rank = rank
        self.processes = processes
        self.epoch = 0
        self.start = 0

    def __len__(self) -> int:
        return self._left // self.processes

    @property
    def _left(self) -> int:
        """Images that all processes still take."""
        left = max(0, self.length - self.start)
        return left if self.processes == 1 else left // self.batch_size * self.batch_size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = list(range(self.length))
        if self.shuffle:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
            order = torch.randperm(self.length, generator=generator).tolist()
        mine = self.batch_size // self.processes
        for place, index in enumerate(order[self.start : self.start + self._left]):
            if place % self.batch_size // mine == self.rank:
                yield self.epoch, index


class BatchLoader(DataLoader):
    """Raises a `DataError` here, whichever process met it."""

    def __iter__(self) -> Iterator[tuple[ImageBatch, Targets, list[Record]]]:  # type: ignore[override]
        for batch in super().__iter__():
            if isinstance(batch, DataError):
                raise batch
            yield batch


def make_loader(
    dataset: DetectionDataset, *, batch_size: int, workers: int, shuffle: bool, rank: int = 0, processes: int = 1
) -> tuple[BatchLoader, EpochSampler]:
    """A loader and the sampler that steers its epoch; neither touches the global random state.

    Raises:
        ConfigError: a batch that cannot be divided among the processes, or is larger than the data.
    """
    if batch_size % processes:
        raise ConfigError(f"batch_size {batch_size} cannot be divided among {processes} processes")
    if processes > 1 and batch_size > len(dataset):
        raise ConfigError(f"batch_size {batch_size} is more than the {len(dataset)} images there are")
    place = {"batch_size": batch_size, "rank": rank, "processes": processes}
    sampler = EpochSampler(len(dataset), seed=dataset.seed, shuffle=shuffle, **place)
    loader = BatchLoader(
        dataset,
        batch_size=batch_size // processes,
        sampler=sampler,
        num_workers=workers,
        collate_fn=dataset.collate,
        worker_init_fn=_leave_signals_to_parent,
        drop_last=shuffle and len(dataset) > batch_size,
        generator=torch.Generator(),  # else every pass draws from the global one
    )
    return loader, sampler


def make_training_loader(
    data: AnnotatedImages,
    preprocess: Preprocess,
    augment: AugmentConfig,
    *,
    seed: int,
    batch_size: int,
    workers: int,
    rank: int = 0,
    processes: int = 1,
) -> tuple[BatchLoader, EpochSampler]:
    """A shuffled loader of augmented images, which are padded with the mean colour; see `make_loader`."""
    fill = [round(255 * mean) for mean in preprocess.config.mean]
    dataset = DetectionDataset(data, preprocess, augment=Augment(augment, fill=fill), seed=seed)
    return make_loader(dataset, batch_size=batch_size, workers=workers, shuffle=True, rank=rank, processes=processes)


def _leave_signals_to_parent(worker: int) -> None:
    """Ctrl-C reaches every process of a terminal: the parent stops in order, and its workers with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _areas(boxes_xyxy: Tensor) -> Tensor:
    sides = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).clamp(min=0).as_subclass(Tensor)
    return sides[:, 0] * sides[:, 1]
