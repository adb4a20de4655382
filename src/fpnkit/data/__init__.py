"""From files to batches: decoding, preprocessing, annotations, augmentation, loading."""
