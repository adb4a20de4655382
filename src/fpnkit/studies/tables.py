"""The rows of the paper's tables, and its figures beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..errors import ConfigError
from ..pyramids import PyramidConfig


@dataclass(frozen=True, kw_only=True)
class Row:
    """One system of a table.

    Attributes:
        key: its letter in the paper, or a short name.
        label: what it is.
        pyramid: its channels are the study's.
        paper: the paper's figures in percent, by metric.
    """

    key: str
    label: str
    pyramid: PyramidConfig
    paper: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Table:
    """A comparison.

    Attributes:
        name, title: of the study.
        task: `rpn`, `fast_rcnn` on the proposals of an RPN on an FPN, or `faster_rcnn`.
        metrics: what is compared: name in the evaluation -> short name for people.
        rows: the systems.
    """

    name: str
    title: str
    task: str
    metrics: Mapping[str, str]
    rows: tuple[Row, ...]

    def only(self, keys: Sequence[str] | None) -> Table:
        """The same table with some of its rows; all of them for None.

        Raises:
            ConfigError: there is no such row.
        """
        known = {row.key: row for row in self.rows}
        for key in keys or ():
            if key not in known:
                raise ConfigError(f"{self.name} has no row {key!r}: its rows are {', '.join(known)}")
        return self if keys is None else replace(self, rows=tuple(known[key] for key in known if key in keys))


RECALL = {
    "proposals/AR_100": "AR100",
    "proposals/AR_1000": "AR1k",
    "proposals/AR_1000_small": "AR1k small",
    "proposals/AR_1000_medium": "AR1k medium",
    "proposals/AR_1000_large": "AR1k large",
}
PRECISION = {"AP50": "AP50", "AP": "AP", "AP_small": "AP small", "AP_medium": "AP medium", "AP_large": "AP large"}
FPN = PyramidConfig(name="fpn")
_SYSTEMS = (
    ("a", "C4 alone", PyramidConfig(name="single_map", options={"level": "c4"})),
    ("b", "C5 alone", PyramidConfig(name="single_map", options={"level": "c5"})),
    ("c", "FPN", FPN),
    ("d", "bottom-up only", PyramidConfig(name="feature_hierarchy")),
    ("e", "top-down only, no laterals", PyramidConfig(name="top_down_only")),
    ("f", "finest level only", PyramidConfig(name="finest_level")),
)
_TABLE1 = {
    "a": (36.1, 48.3, 32.0, 58.7, 62.2),
    "b": (36.3, 44.9, 25.3, 55.5, 64.2),
    "c": (44.0, 56.3, 44.9, 63.4, 66.2),
    "d": (37.4, 49.5, 30.5, 59.9, 68.0),
    "e": (34.5, 46.1, 26.5, 57.4, 64.7),
    "f": (38.4, 51.3, 35.1, 59.7, 67.6),
}
_TABLE2 = {
    "a": (54.7, 31.9, 15.7, 36.5, 45.5),
    "b": (52.9, 28.8, 11.9, 32.4, 43.4),
    "c": (56.9, 33.9, 17.8, 37.7, 45.8),
    "d": (44.9, 24.9, 10.9, 24.4, 38.5),
    "e": (54.0, 31.3, 13.3, 35.2, 45.3),
    "f": (56.3, 33.4, 17.3, 37.3, 45.6),
}
_TABLE3 = {
    "a": (53.1, 31.6, 13.2, 35.6, 47.1),
    "b": (51.7, 28.0, 9.6, 31.9, 43.1),
    "c": (56.9, 33.9, 17.8, 37.7, 45.8),
}


def _rows(metrics: Mapping[str, str], paper: Mapping[str, tuple[float, ...]]) -> tuple[Row, ...]:
    return tuple(
        Row(key=key, label=label, pyramid=pyramid, paper=dict(zip(metrics, paper[key], strict=True)))
        for key, label, pyramid in _SYSTEMS
        if key in paper
    )


STUDIES = {
    "table1": Table(
        name="table1",
        title="Table 1: proposals of an RPN",
        task="rpn",
        metrics=RECALL,
        rows=_rows(RECALL, _TABLE1),
    ),
    "table2": Table(
        name="table2",
        title="Table 2: Fast R-CNN on fixed proposals",
        task="fast_rcnn",
        metrics=PRECISION,
        rows=_rows(PRECISION, _TABLE2),
    ),
    "table3": Table(
        name="table3",
        title="Table 3: Faster R-CNN",
        task="faster_rcnn",
        metrics=PRECISION,
        rows=_rows(PRECISION, _TABLE3),
    ),
    "necks": Table(
        name="necks",
        title="Necks: Faster R-CNN on pyramids of equal budget",
        task="faster_rcnn",
        metrics={**RECALL, **PRECISION},
        rows=(
            Row(key="fpn", label="FPN", pyramid=FPN),
            Row(
                key="residual",
                label="FPN, residual connections",
                pyramid=PyramidConfig(name="fpn", options={"connection": "residual"}),
            ),
            Row(key="pan", label="PAN", pyramid=PyramidConfig(name="pan")),
            Row(key="bifpn", label="BiFPN, 3 rounds", pyramid=PyramidConfig(name="bifpn")),
        ),
    ),
}
