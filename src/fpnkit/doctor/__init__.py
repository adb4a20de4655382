"""Check annotated images before a training: bad records, counts, anchors that fit, images in two splits."""
