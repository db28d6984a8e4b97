"""The tokenizer's network for a GPU, in 16-bit arithmetic: the function of sam2's modules, computed otherwise.

path           what MaskTokenizer calls: staging, features, embeddings, logits, IoUs
trunk          the image backbone, its tokens in the order of the attention windows
two_way        transformers: what an image's masks share is computed once, the rest in three passes over positions
mask_encoder   the mask encoder on them
mask_decoder   the mask decoder on them, with a fourth pass to logits
patches, pooling, products    of the backbone: first tokens from pixels, 2 x 2 to one, products with what follows them
attention, decoding, kernels, overlaps, pictures, windows   further Triton kernels; what they share is in functions
resizer        which of Pillow's ways a picture's size needs
launches       launches kernels, or compiles many together; replays records their launches as CUDA graphs

docs/performance.md says what each of these steps gained.
"""
