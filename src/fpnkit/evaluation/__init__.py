"""How good a detector is: COCO's figures of what an engine finds."""
