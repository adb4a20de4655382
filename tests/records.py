"""Annotated objects and images of tests that build them by hand."""

from __future__ import annotations

from fpnkit.data.annotated import AnnotatedObject


def annotated_object(x1: float, y1: float, x2: float, y2: float, *, label: int = 0, **more) -> AnnotatedObject:
    """An object whose box is as it was read."""
    bbox = (x1, y1, x2 - x1, y2 - y1)
    return AnnotatedObject(
        **{"box_xyxy": (x1, y1, x2, y2), "label": label, "bbox": bbox, "area": bbox[2] * bbox[3]} | more
    )
