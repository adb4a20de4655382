"""Batches of images and targets, in an order that depends on the seed alone."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from ..errors import ConfigError, DataError
from ..structures import PixelBatch, Targets
from .annotated import AnnotatedImages, Record
from .augment import Augment, AugmentConfig, CopyPaste, record_tensor
from .paths import MAX_PIXELS
from .preprocess import Preprocess

Sample = dict[str, Any]
"""One image for a batch: `image`, `original`, `boxes`, `labels`, `crowd`, `index`, `seed`."""


class DetectionDataset(Dataset[Sample]):
    """Decoded, resized images with their boxes in the new pixels.

    Args:
        dataset: checked annotations.
        preprocess: resizing when there is no augmentation.
        augment: for training.
        paste: with `augment`: objects of other images.
        seed: with the epoch and index, the only source of chance.
        max_pixels: see `read_image`.
    """

    def __init__(
        self,
        dataset: AnnotatedImages,
        preprocess: Preprocess,
        *,
        augment: Augment | None = None,
        paste: CopyPaste | None = None,
        seed: int = 0,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.dataset = dataset
        self.preprocess = preprocess
        self.augment = augment
        self.paste = paste
        self.seed = seed
        self.max_pixels = max_pixels

    def __len__(self) -> int:
        return len(self.dataset.records)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        """`key` is (epoch, index), so that a worker's random state is the same wherever the image is loaded."""
        epoch, index = key
        record = self.dataset.records[index]
        seed = hash((self.seed, epoch, index)) & 0xFFFFFFFF
        image = record_tensor(record, max_pixels=self.max_pixels)
        labels, crowd = torch.tensor(record.labels, dtype=torch.int64), torch.tensor(record.crowd, dtype=torch.bool)
        if self.augment:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(seed)  # of the CPU alone
                resized, boxes, left = self.augment(image, record)
                labels, crowd = labels[left], crowd[left]
                if self.paste:
                    resized, boxes, labels, crowd = self.paste(resized, boxes, labels, crowd)
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

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> list[Sample] | DataError:
        """A batch of samples, or what is wrong with one: raised in a worker it would come with that one's traceback."""
        try:
            return [self[key] for key in keys]
        except DataError as error:
            return error

    def collate(self, samples: Sequence[Sample] | DataError) -> tuple[PixelBatch, Targets, list[Record]] | DataError:
        """Samples -> batch of pixels (see `Preprocess.normalise`), padded targets, their records."""
        if isinstance(samples, DataError):
            return samples
        batch = self.preprocess.pixels([each["image"] for each in samples], [each["original"] for each in samples])
        records = [self.dataset.records[each["index"]] for each in samples]
        return batch, pad_targets(samples), records


def pad_targets(samples: Sequence[Sample]) -> Targets:
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


class BatchSampler(Sampler[list[tuple[int, int]]]):
    """Yields batches of (epoch, index), in an order drawn from the seed and epoch.

    Batches are numbered through all epochs, so that loading goes on from one epoch to the next without a pause, and
    can start anywhere.

    Args:
        length: of the data.
        seed: of the order.
        shuffle: for training: a new order each epoch, of whole batches; or all the data in its own order.
        batch_size: images that all processes take at a time.
        rank, processes: this one takes the images of its place in each batch, so that together they take the same
            batches as one process alone.
    Attributes:
        numbers: of the batches to yield; at first those of one epoch.
    """

    def __init__(
        self, length: int, *, seed: int, shuffle: bool, batch_size: int, rank: int = 0, processes: int = 1
    ) -> None:
        self.length = length
        self.seed = seed
        self.shuffle = shuffle
        self.batch_size = batch_size
        mine = batch_size // processes
        self.mine = slice(rank * mine, (rank + 1) * mine)
        self.numbers = range(self.per_epoch)

    @property
    def per_epoch(self) -> int:
        """Batches in an epoch: whole ones, or with a shorter last one when the data keeps its order."""
        whole, rest = divmod(self.length, self.batch_size)
        return max(1, whole) if self.shuffle else whole + bool(rest)

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        drawn, order = -1, []
        for number in self.numbers:
            epoch, place = divmod(number, self.per_epoch)
            if epoch != drawn:
                drawn, order = epoch, self._order(epoch)
            batch = order[place * self.batch_size : (place + 1) * self.batch_size]
            yield [(epoch, index) for index in batch[self.mine]]

    def _order(self, epoch: int) -> list[int]:
        if not self.shuffle:
            return list(range(self.length))
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        return torch.randperm(self.length, generator=generator).tolist()


class BatchLoader(DataLoader[Sample]):
    """Raises a `DataError` here, whichever process met it."""

    def __iter__(self) -> Generator[tuple[PixelBatch, Targets, list[Record]], None, None]:  # type: ignore[override]
        for batch in super().__iter__():
            if isinstance(batch, DataError):
                raise batch
            yield batch


def make_loader(
    dataset: DetectionDataset,
    *,
    batch_size: int,
    workers: int,
    shuffle: bool,
    rank: int = 0,
    processes: int = 1,
    worker_init: Callable[[int], None] | None = None,
) -> tuple[BatchLoader, BatchSampler]:
    """A loader and the sampler that steers it; neither touches the global random state.

    Where there is a GPU, batches come in memory that it copies from by itself.

    Args:
        dataset: what to load.
        batch_size: images that all processes take at a time.
        workers: loading processes; 0 loads in this one.
        shuffle: see `BatchSampler`.
        rank, processes: see `BatchSampler`.
        worker_init: called in each loading process with its number, before it loads.
    Raises:
        ConfigError: a batch that cannot be divided among the processes, or is larger than the data.
    """
    if batch_size % processes:
        raise ConfigError(f"batch_size {batch_size} cannot be divided among {processes} processes")
    if processes > 1 and batch_size > len(dataset):
        raise ConfigError(f"batch_size {batch_size} is more than the {len(dataset)} images there are")
    sampler = BatchSampler(
        len(dataset), seed=dataset.seed, shuffle=shuffle, batch_size=batch_size, rank=rank, processes=processes
    )
    loader = BatchLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        collate_fn=dataset.collate,
        worker_init_fn=worker_init,
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
    max_pixels: int = MAX_PIXELS,
    worker_init: Callable[[int], None] | None = None,
) -> tuple[BatchLoader, BatchSampler]:
    """A shuffled loader of augmented images, which are padded with the mean colour; see `make_loader`."""
    fill = [round(255 * mean) for mean in preprocess.config.mean]
    change = Augment(augment, fill=fill)
    paste = CopyPaste(data, change, augment.paste, max_pixels=max_pixels) if augment.paste else None
    dataset = DetectionDataset(data, preprocess, augment=change, paste=paste, seed=seed, max_pixels=max_pixels)
    return make_loader(
        dataset,
        batch_size=batch_size,
        workers=workers,
        shuffle=True,
        rank=rank,
        processes=processes,
        worker_init=worker_init,
    )
