"""Put a trained run's best weights into the package: python tools/ship.py RUN NAME [SHORT LONG]

SHORT and LONG are the sides that images are resized to from then on; see `PreprocessConfig`.
Stores them as float16 (half the size) under src/fpnkit/zoo/weights/NAME.safetensors and writes their hash into
src/fpnkit/zoo/shipped.py. Evaluate afterwards: `fpnkit evaluate NAME ...` scores the file that ships.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from fpnkit.weights import ModelCard, find_weights, load_weights, save_weights
from fpnkit.zoo import shipped


def ship(run: str, name: str, sides: Sequence[int]) -> None:
    """Convert, store, and record the hash."""
    detector, card = load_weights(find_weights(run))
    if card.spec is None:
        raise SystemExit(f"{run} holds {card.name}, a detector that nobody else can build")
    if sides:
        preprocess = dataclasses.replace(card.preprocess, short_side=sides[0], long_side=sides[1])
        card = ModelCard.of_spec(dataclasses.replace(card.spec, preprocess=preprocess), card.classes)
    target = shipped.FOLDER / f"{name}.safetensors"
    save_weights(target, detector, card, half=True)
    digest = hashlib.sha256(target.read_bytes()).hexdigest()
    source = Path(shipped.__file__)
    text, count = re.subn(rf'"{name}": "[0-9a-f]*"', f'"{name}": "{digest}"', source.read_text())
    if count != 1:
        raise SystemExit(f'add the line "{name}": "" to SHA256 in {source} first')
    source.write_text(text)
    print(f"{target}: {target.stat().st_size / 1e6:.1f} MB, sha256 {digest}")


if __name__ == "__main__":
    if len(sys.argv) not in (3, 5):
        raise SystemExit(__doc__)
    ship(sys.argv[1], sys.argv[2], [int(side) for side in sys.argv[3:]])
