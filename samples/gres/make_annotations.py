"""Write the two gRefCOCO files of the sample from the hand-made annotations.

Input:  ``annotations.json`` next to this script: photos, object outlines
        (polygons as ``"x,y x,y ..."`` strings, absolute pixels) and the
        referring sentences.
Output: ``grefcoco/instances.json`` and ``grefcoco/grefs(unc).json``.

The result is deterministic: running the script twice gives identical bytes.
"""

import json
import re
from pathlib import Path

import numpy as np
from pycocotools import mask as mask_utils

HERE = Path(__file__).resolve().parent
IMAGE_NAME = "COCO_train2014_{:012d}"
SPELLING = {"2nd": "second", "grey": "gray", "blonde": "blond"}
INFO = {
    "description": "Hand-annotated sample in the layout of gRefCOCO (not COCO data)",
    "url": "",
    "version": "1.0",
    "year": 2026,
    "contributor": "authors of this project, Apache-2.0",
    "date_created": "",
}


def parse_polygon(text):
    """Turn ``"x,y x,y"`` into COCO's flat list ``[x, y, x, y]``."""
    return [float(value) for point in text.split() for value in point.split(",")]


def polygon_box(polygons):
    """Return [x, y, w, h] around all points, as COCO does for polygons."""
    xs = [x for polygon in polygons for x in polygon[0::2]]
    ys = [y for polygon in polygons for y in polygon[1::2]]
    box = (min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys))
    return [round(value, 2) for value in box]


def uncompressed_rle(mask):
    """Encode a binary mask as COCO's crowd form: column-major run lengths."""
    flat = np.concatenate([[0], mask.flatten(order="F"), [0]]).astype(np.int8)
    changes = np.flatnonzero(np.diff(flat))
    ends = np.concatenate([[0], changes, [mask.size]])
    counts = np.diff(ends).tolist()
    if counts[-1] == 0:
        counts.pop()
    return {"counts": counts, "size": list(mask.shape)}


def make_annotation(item, photo, category_ids):
    """Build one COCO annotation, a polygon one or a crowd one."""
    polygons = [parse_polygon(text) for text in item["polygons"]]
    encoded = mask_utils.merge(mask_utils.frPyObjects(polygons, photo["height"], photo["width"]))
    crowd = item.get("crowd", False)
    if crowd:
        segmentation = uncompressed_rle(mask_utils.decode(encoded))
        box = [int(value) for value in mask_utils.toBbox(encoded)]
        area = int(mask_utils.area(encoded))
    else:
        segmentation = polygons
        box = polygon_box(polygons)
        area = float(mask_utils.area(encoded))
    return {
        "segmentation": segmentation,
        "area": area,
        "iscrowd": int(crowd),
        "image_id": photo["id"],
        "bbox": box,
        "category_id": category_ids[item["category"]],
        "id": item["id"],
    }


def make_image(photo):
    """Build the COCO image entry of one photo."""
    return {
        "license": photo["license"],
        "file_name": IMAGE_NAME.format(photo["id"]) + ".jpg",
        "coco_url": "",
        "height": photo["height"],
        "width": photo["width"],
        "date_captured": "",
        "flickr_url": "",
        "id": photo["id"],
    }


def clean_sentence(raw):
    """Clean a typed sentence like RefCOCO: lower case, no punctuation."""
    words = re.sub(r"[^a-z0-9' ]", " ", raw.lower()).split()
    return " ".join(SPELLING.get(word, word) for word in words)


def make_sentences(raws, first_id):
    """Build the sentence entries of one ref; ids count up from ``first_id``."""
    sentences = []
    for offset, raw in enumerate(raws):
        sent = clean_sentence(raw)
        sentences.append({"tokens": sent.split(), "raw": raw, "sent_id": first_id + offset, "sent": sent})
    return sentences


def make_ref(entry, photo, category_ids, ref_id, first_sent_id):
    """Build one gRefCOCO ref; no object at all means a no-target ref."""
    objects = {item["key"]: item for item in photo["objects"]}
    targets = [objects[key] for key in entry["objects"]]
    ann_ids = [item["id"] for item in targets]
    classes = [category_ids[item["category"]] for item in targets]
    if "missing_ann_id" in entry:  # the deliberately broken record, see SOURCES.md
        ann_ids = [entry["missing_ann_id"]]
        classes = [category_ids[entry["missing_category"]]]
    suffix = f"_{entry['suffix']}" if "suffix" in entry else ""
    sentences = make_sentences(entry["sentences"], first_sent_id)
    return {
        "ann_id": ann_ids or [-1],
        "category_id": classes or [-1],
        "file_name": IMAGE_NAME.format(photo["id"]) + suffix + ".jpg",
        "image_id": photo["id"],
        "no_target": not ann_ids,
        "ref_id": ref_id,
        "sent_ids": [sentence["sent_id"] for sentence in sentences],
        "sentences": sentences,
        "split": entry["split"],
    }


def write_lines(path, text_parts):
    """Write text with unix line ends on every platform."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(text_parts).encode("utf-8"))


def json_list(records):
    """Format a list as JSON with one record per line."""
    return "[\n" + ",\n".join(json.dumps(record) for record in records) + "\n]"


def main():
    """Read annotations.json and write both output files."""
    data = json.loads((HERE / "annotations.json").read_text(encoding="utf-8"))
    category_ids = {category["name"]: category["id"] for category in data["categories"]}
    images, annotations, refs = [], [], []
    sent_id = 0
    for photo in data["photos"]:
        images.append(make_image(photo))
        for item in photo["objects"]:
            annotations.append(make_annotation(item, photo, category_ids))
        for entry in photo["refs"]:
            refs.append(make_ref(entry, photo, category_ids, len(refs), sent_id))
            sent_id += len(entry["sentences"])
    parts = [
        f'{{"info": {json.dumps(INFO)},\n"images": {json_list(images)},\n',
        f'"licenses": {json_list(data["licenses"])},\n',
        f'"annotations": {json_list(annotations)},\n',
        f'"categories": {json_list(data["categories"])}}}\n',
    ]
    write_lines(HERE / "grefcoco" / "instances.json", parts)
    write_lines(HERE / "grefcoco" / "grefs(unc).json", [json_list(refs), "\n"])


if __name__ == "__main__":
    main()
