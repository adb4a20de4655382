"""Put a trained run's best weights into the package: python tools/ship.py RUN NAME

Stores them as float16 (half the size) under src/fpnkit/zoo/weights/NAME.safetensors and writes their hash into
src/fpnkit/zoo/shipped.py. Evaluate afterwards: `fpnkit evaluate NAME ...` scores the file that ships.
"""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path

from fpnkit.engine.checkpoint import load_weights, save_weights
from fpnkit.engine.predict import find_model
from fpnkit.zoo import shipped


def ship(run: str, name: str) -> None:
    """Convert, store, and record the hash."""
    detector, card = load_weights(find_model(run))
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
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    ship(sys.argv[1], sys.argv[2])
