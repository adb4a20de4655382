"""What a person detector misses and mistakes: python tools/failures.py VAL.json DETECTIONS.json [MIN_SCORE]

DETECTIONS.json is what `fpnkit evaluate` writes. A detection is right when it overlaps a person by IoU 0.5 that no
stronger one is matched with. Prints recall by object side (square root of the box's area, pixels), kinds of errors,
and the ten images with most people missed and wrong detections.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections import Counter, defaultdict

import numpy as np
from pycocotools.coco import COCO
from pycocotools.mask import iou

SIDES = (0, 16, 32, 64, 96, 192, 10_000)
WORST = 10


def overlaps(found: list[dict], boxes: list[dict]) -> np.ndarray:
    """(found, boxes) IoU."""
    if not found or not boxes:
        return np.zeros((len(found), len(boxes)))
    return np.array(iou([each["bbox"] for each in found], [each["bbox"] for each in boxes], [0] * len(boxes)))


def sorted_out(found: list[dict], people: list[dict], others: list[dict]) -> tuple[set[int], Counter]:
    """Indices of the people found, and counts of right and wrong detections of one image, best first."""
    with_people, with_others = overlaps(found, people), overlaps(found, others)
    matched: set[int] = set()
    kinds: Counter = Counter()
    for row, other in zip(with_people, with_others, strict=True):
        free = [i for i in np.argsort(-row) if i not in matched and row[i] >= 0.5]
        if free:
            matched.add(int(free[0]))
            kinds["right"] += 1
        elif row.max(initial=0) >= 0.5:
            kinds["second box on one person"] += 1
        elif row.max(initial=0) >= 0.1:
            kinds["part of a person, or several in one box"] += 1
        else:
            kinds["another object" if other.max(initial=0) >= 0.4 else "nothing annotated there"] += 1
    return matched, kinds


def main(annotations: str, detections: str, min_score: float) -> None:
    """Print the report."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(annotations)
    by_image = defaultdict(list)
    with open(detections) as file:
        for each in sorted(json.load(file), key=lambda each: -each["score"]):
            if each["score"] >= min_score:
                by_image[each["image_id"]].append(each)
    (person,) = truth.getCatIds(catNms=["person"])
    seen, kinds, errors = defaultdict(lambda: [0, 0]), Counter(), {}
    for image_id in truth.imgs:
        objects = [each for each in truth.imgToAnns[image_id] if not each["iscrowd"]]
        people = [each for each in objects if each["category_id"] == person]
        matched, more = sorted_out(
            by_image[image_id], people, [each for each in objects if each["category_id"] != person]
        )
        kinds += more
        errors[image_id] = (len(people) - len(matched), more.total() - more["right"], people)
        for i, each in enumerate(people):
            side = (each["bbox"][2] * each["bbox"][3]) ** 0.5
            groups = [f"side from {max(low for low in SIDES if low <= side)}"]
            groups += ["in a group of 10 or more"] if len(people) >= 10 else []
            for group in groups:
                seen[group][0] += i in matched
                seen[group][1] += 1
    for group, (hits, total) in sorted(seen.items(), key=lambda item: (len(item[0]), item[0])):
        print(f"recall, {group}: {100 * hits / total:.0f} % of {total}")
    for kind, count in kinds.most_common():
        print(f"detections, {kind}: {count}")
    for image_id, (missed, wrong, people) in sorted(errors.items(), key=lambda item: -sum(item[1][:2]))[:WORST]:
        middle = np.median([(each["bbox"][2] * each["bbox"][3]) ** 0.5 for each in people] or [0])
        print(
            f"image {image_id}: {missed} of {len(people)} people missed, {wrong} detections wrong; "
            f"half of its people are under {middle:.0f} pixels"
        )


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        raise SystemExit(__doc__)
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]) if len(sys.argv) == 4 else 0.5)
