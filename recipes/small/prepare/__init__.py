"""Rebuilds the images and masks that the tokenizer ``small`` was trained and measured on.

    python -m recipes.small.prepare --repositories FOLDER --out recipes/small/data

``sources.toml`` names every public repository with its commit, paths and what is changed; one module reads one kind
of source. Nothing is downloaded: FOLDER holds clones, bare or not, named <owner>+<name> or <owner>__<name>.

    table           sources.toml, checked
    repositories    files of a pinned commit, out of a clone's git directory
    bsds500 yolo coco label_maps via   readers, one a kind of source
    collection      one finished source: its files, thumbnails and counts
    build           all sources, in order; leaks: no test image may be among the training images

The same commits give the same masks, which is checked against ``sources.toml``, and the same images: those of BSDS500
and COCO128 byte for byte. A JPEG that was made smaller has the very bytes that ``small`` was trained on where Pillow is
13.0.0; another version, or another libjpeg in it, may code it otherwise. PNG bytes depend on zlib, their pixels do not.
"""
