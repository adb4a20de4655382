"""Pure functions on tensors: boxes, deltas, anchors, matching, NMS, RoI pooling, losses."""
