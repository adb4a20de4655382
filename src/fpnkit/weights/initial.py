"""Where the weights of a new detector come from: one value for all ways."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..backbones import Backbone, BackboneConfig, make_backbone
from ..detectors import Detector
from ..errors import CheckpointError, ConfigError
from ..settings import did_you_mean
from ..zoo.shipped import SHA256
from ..zoo.spec import ModelSpec
from .backbone import load_backbone_weights
from .checkpoint import read_card, read_header
from .find import find_weights
from .transfer import Transfer, transfer_weights

WORDS = ("random", "timm")


@dataclass(frozen=True)
class InitialWeights:
    """Where the weights of a new detector come from; see `parse`.

    Attributes:
        text: as given to `parse`.
        kind: `random`, `timm`, `detector` for weights of fpnkit, or `backbone` for a classifier's.
        path: the file; None of `random` and `timm`.
    """

    text: str
    kind: str
    path: Path | None = None

    @classmethod
    def parse(cls, text: str | Path) -> InitialWeights:
        """Read where weights come from.

        Args:
            text: `random`; `timm` for ImageNet weights of the backbone, which timm downloads; `coco80` or `default`,
                which come with the package; the folder of a run; a .safetensors file of fpnkit; or the
                .pth or .safetensors file of a classifier, whose weights fill the backbone.
        Raises:
            CheckpointError: there is no such file, or it is damaged; the nearest word is given.
        """
        name = str(text)
        if name in WORDS:
            return cls(name, name)
        if not Path(text).exists() and name not in SHA256:
            hint = did_you_mean(name, [*WORDS, *SHA256], "without a file they")
            raise CheckpointError(f"{name}: no such weights, run folder or file; {hint}")
        path = find_weights(text)
        ours = path.suffix == ".safetensors" and read_header(path) is not None
        return cls(name, "detector" if ours else "backbone", path)

    @property
    def spec(self) -> ModelSpec | None:
        """The model that weights of fpnkit are of; None of a detector of your own, and of all other sources.

        Raises:
            CheckpointError: the file is damaged.
        """
        return read_card(self.path).spec if self.kind == "detector" and self.path else None

    def apply(self, detector: Detector, classes: Sequence[str], *, spec: ModelSpec | None = None) -> Transfer | None:
        """Fill a new detector.

        Args:
            detector: with random weights. `random` leaves them, and lets the whole backbone learn: without trained
                weights nothing may stay frozen, for some norms start at zero.
            classes: of the detector, by label.
            spec: it was built from; `timm` needs it.
        Returns:
            What was kept of which classes, where the weights are a detector's.
        Raises:
            CheckpointError: the file is damaged, or its tensors do not fit.
            ConfigError: the detector has no `backbone` to fill.
        """
        if self.kind == "detector" and self.path:
            return transfer_weights(detector, classes, self.path)
        backbone = getattr(detector, "backbone", None)
        if isinstance(backbone, Backbone):
            self.fill_backbone(backbone, spec.backbone if spec else None)
        elif self.kind != "random":
            raise ConfigError(
                f"weights {self.text!r} are for the backbone of a detector, {type(detector).__name__} has none as "
                ".backbone: fill it yourself and pass no weights"
            )
        return None

    def fill_backbone(self, backbone: Backbone, config: BackboneConfig | None) -> None:
        """Fill a new backbone alone.

        Args:
            backbone: with random weights; `random` only lets it learn, see `apply`.
            config: it was built from; `timm` needs it.
        Raises:
            CheckpointError: the file is damaged, its tensors do not fit, or timm cannot download.
            ConfigError: the weights are a detector's, or `timm` has no config to go by.
        """
        if self.kind == "detector":
            raise ConfigError(
                f"weights {self.text!r} are of a whole detector: expected `timm`, `random` or a classifier's"
            )
        if self.kind == "random":
            backbone.thaw()
        elif self.path:
            load_backbone_weights(backbone, self.path)
        elif config is None:
            raise ConfigError("weights 'timm' need a spec that says which network the backbone is")
        else:
            backbone.load_state_dict(_downloaded(config).state_dict())

    def __str__(self) -> str:
        what = {
            "random": "random weights",
            "timm": "ImageNet weights of the backbone, by timm",
            "detector": f"the detector in {self.text}",
            "backbone": f"the backbone's weights in {self.text}",
        }
        return what[self.kind]


def _downloaded(config: BackboneConfig) -> Backbone:
    try:
        return make_backbone(config, pretrained=True)
    except (OSError, RuntimeError) as error:  # no network, or no weights of that name
        cause = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"timm has no weights of {config.name} to load here: {cause}: pass a classifier's file instead"
        ) from None
