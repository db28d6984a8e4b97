"""``samtok-data stats``: what lies in outputs, counted in one pass: masks, codes, collisions, sizes, r-IoU, rejects."""
