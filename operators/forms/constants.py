"""Names and defaults shared by the forms. Some repeat the library's, because reading them there would import torch."""

from __future__ import annotations

PROTOTYPES_METHOD = "refseg/prototypes"
SEGMENT_METHOD = "refseg/segment"
INDEX_METHOD = "refseg/index"
SIMILAR_METHOD = "refseg/similar"
EVALUATION_METHOD = "refseg/evaluation"

REFERENCE_TAG = "reference"
NEGATIVE_TAG = "negative"
EMPTY_TAG = "known_empty"
REFERENCE_FIELD = "ground_truth"
ACCEPTED_FIELD = "accepted"
REJECTED_FIELD = "rejected"
LABEL_FIELD = "predictions"
SIMILAR_FIELD = "similar"
PROTOTYPES_NAME = "prototypes"
EVAL_KEY = "eval"
SUGGESTED_STORE = "refseg_suggested"
"""Execution store of suggested references, by the field of the predictions."""
MAX_DETECTIONS = 100
MERGE_IOU = 0.5
NUM_SIMILAR = 25
NUM_SUGGESTED = 3
MAX_MINED = 20
SHOTS = 3
SEED = 33
MIN_SIDE = 32
BORDER = 10

MODEL = "large"
FAST = "-fast"
"""Ends the names of presets that are asked at fewer prompts."""
DEMO_MARK = "refseg_demo"
"""In the info of the demo's datasets."""
MODELS = {
    "demo": "demo: ships with RefSeg, no download, for its synthetic demo images only",
    "tiny": "tiny: SAM 2.1 tiny and DINOv2 small, downloads 0.2 GB",
    "small": "small: SAM 2.1 small and DINOv2 small, downloads 0.3 GB",
    "base": "base: SAM 2.1 base+ and DINOv2 base, downloads 0.7 GB",
    "large": "large: SAM 2.1 large and DINOv2 large, downloads 2.1 GB, wants a GPU",
    "edge": "edge: EdgeTAM and DINOv2 small, downloads 0.1 GB, needs the package timm; 56.0 mIoU in one click, SAM 2.1 63.3",
    "sam3": "sam3: SAM 3 and DINOv2 large, downloads 4.7 GB once Meta's SAM License is accepted on Hugging Face, wants a GPU",
    "paper": "paper: SAM 2 large and DINOv2 large exactly as published, downloads 2.1 GB, wants a GPU",
    "demo-fast": "demo-fast: demo, asked at fewer prompts",
    "tiny-fast": "tiny-fast: tiny, asked at fewer prompts: misses a few masks, downloads 0.2 GB",
    "small-fast": "small-fast: small, asked at fewer prompts: misses a few masks, downloads 0.3 GB",
    "base-fast": "base-fast: base, asked at fewer prompts: misses a few masks, downloads 0.7 GB",
    "large-fast": "large-fast: large, asked at fewer prompts: misses a few masks, downloads 2.1 GB, wants a GPU",
    "edge-fast": "edge-fast: edge, asked at fewer prompts: misses a few masks, downloads 0.1 GB, needs the package timm",
    "sam3-fast": "sam3-fast: sam3, asked at fewer prompts: misses a few masks, downloads 4.7 GB with a licence, wants a GPU",
}

SIMILARITIES = {
    "mean": "mean: one prototype, the mean of its references",
    "nearest": "nearest: its three most similar references",
    "clusters": "clusters: the most similar of up to four groups of its references",
}
SECOND_LOOKS = {
    "always": "always: at the best masks of each image",
    "known": "known: where somebody has looked before, and nothing anew",
    "never": "never: masks are compared as the whole image shows them",
}
OVERLAPS = {
    "merge": "merge: by how much of it lies inside, as published",
    "diffusion": "diffusion: along chains of masks inside masks",
}

MIN_CONFIDENCE = {"demo": 0.7, "demo-fast": 0.7, "paper": 0.0}
"""Default scores below which nothing is written, where they are not OTHER_MIN_CONFIDENCE."""
OTHER_MIN_CONFIDENCE = 0.3

MODELS_AS_PUBLISHED = ("paper",)
"""They match to the letter of the paper unless told otherwise."""
MODELS_OF_FOLDERS = ("edge", "sam3", "edge-fast", "sam3-fast")
"""Their segmenters come as folders for transformers, and not as checkpoints of SAM 2."""
MODELS_THAT_KEEP_DUPLICATES = MODELS_AS_PUBLISHED
"""Their indexes keep near-duplicates without being asked, because the paper does."""

CHANGED_IDS_IN_RESULT = 1000
"""Changed samples named in an operator's result; the run holds ten times as many."""
SKIPS_IN_RESULT = 100
"""Skipped images named in an operator's result; the run holds all of them."""
