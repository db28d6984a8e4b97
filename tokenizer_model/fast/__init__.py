"""The tokenizer's network for a GPU, in 16-bit arithmetic: the function of sam2's modules, computed otherwise.

path           what MaskTokenizer calls: staging, features, embeddings, logits
trunk          the image backbone, its tokens in the order of the attention windows
two_way        transformers: what an image's masks share is computed once, the rest in three passes over positions
mask_encoder   the mask encoder on them
mask_decoder   the mask decoder on them, with a fourth pass to logits
kernels        the Triton kernels of both

docs/performance.md says what each of these steps gained.
"""
