"""Deterministic weights for PCA-Seg and CAT-Seg, by published name (numpy only).

    value(name, shape) = loc + scale * f(n),   n = RandomState(crc32(name)).standard_normal(shape)

`name` is the key in the OFFICIAL full state_dict (CATSeg module), e.g.
    sem_seg_head.predictor.transformer.layers.0.swin_block_first.block_1.attn.q.weight
    sem_seg_head.predictor.clip_model.visual.blocks.0.attn.q_proj.weight
    upsample1.weight
A sub-module must be filled with its FULL name (prefix included), so that the same tensor always gets
the same numbers.  Draws are float64; the caller casts to float32.  Shape () draws one number.

Rule, first match wins (n is the standard normal draw, F the fan-in):
 1. untouched (None): *freqs_cos, *freqs_sin, *attn_mask, *num_batches_tracked, *logit_scale,
    pixel_mean/std buffers                                   -> keep what the constructor made
 2. *res_scale                                               -> 0.5 + 0.1 n
 3. *running_var                                             -> 1 + 0.2 |n|
 4. *running_mean                                            -> 0.1 n
 5. *padding_tokens, *padding_guidance                       -> 0.5 n      (visible on purpose)
 6. *cls_token, *pos_embed                                   -> 0.3 n      (visible on purpose)
 7. *token_embedding.weight                                  -> 0.2 n
 8. *positional_embedding                                    -> 0.1 n
 9. *text_projection (width, out), used as x @ P             -> n / sqrt(shape[0])
10. 1-D "*.weight" (LayerNorm, BatchNorm, GroupNorm)         -> 1 + 0.1 n
11. any other 1-D or 0-D tensor (biases, q_bias, v_bias...)  -> 0.05 n
12. ConvTranspose2d weights (in, out, kh, kw), stride=kernel: upsample1/upsample2/decoder1.up/decoder2.up
                                                             -> n / sqrt(shape[0])
13. every other weight (out, in[, kh, kw]):  gain * n / sqrt(prod(shape[1:])), with gain
      visual.blocks.11. and visual.blocks.23.  q_proj / k_proj : 0.3   (csa/qq attention has NO 1/sqrt(d)
                scale: |q|^2 = 64 * gain^2 sits on the diagonal; 0.3 keeps the softmax unsaturated)
      other visual q_proj / k_proj : 1.5
      transformer.conv1.weight     : 4.0   (the cosine volume is ~0.04)
      everything else              : 1.0
"""

import zlib
import numpy as np

UNTOUCHED = ("freqs_cos", "freqs_sin", "attn_mask", "num_batches_tracked", "logit_scale", "pixel_mean", "pixel_std")
TRANSPOSED = ("upsample1.weight", "upsample2.weight", "decoder1.up.weight", "decoder2.up.weight")


def seeded_value(name, shape):
    """float64 array for parameter `name`, or None when the tensor must be left as constructed."""
    if name.endswith(UNTOUCHED):
        return None
    shape = tuple(int(s) for s in shape)
    n = np.random.RandomState(zlib.crc32(name.encode("ascii")) & 0xFFFFFFFF).standard_normal(shape)
    n = np.asarray(n, dtype=np.float64)
    if name.endswith("res_scale"):
        return np.asarray(0.5 + 0.1 * n)
    if name.endswith("running_var"):
        return 1.0 + 0.2 * np.abs(n)
    if name.endswith("running_mean"):
        return 0.1 * n
    if name.endswith(("padding_tokens", "padding_guidance")):
        return 0.5 * n
    if name.endswith(("cls_token", "pos_embed")):
        return 0.3 * n
    if name.endswith("token_embedding.weight"):
        return 0.2 * n
    if name.endswith("positional_embedding"):
        return 0.1 * n
    if name.endswith("text_projection"):
        return n / np.sqrt(shape[0])
    if len(shape) <= 1:
        return 1.0 + 0.1 * n if name.endswith(".weight") else 0.05 * n
    if name.endswith(TRANSPOSED):
        return n / np.sqrt(shape[0])
    gain = 1.0
    if ".visual.blocks." in name and name.endswith(("q_proj.weight", "k_proj.weight")):
        gain = 0.3 if (".blocks.11." in name or ".blocks.23." in name) else 1.5
    elif name.endswith("transformer.conv1.weight"):
        gain = 4.0
    return gain * n / np.sqrt(np.prod(shape[1:]))


def seeded_input(seed, shape, scale=1.0):
    """Test inputs: RandomState(seed).standard_normal(shape) * scale, float64."""
    return np.random.RandomState(seed).standard_normal(shape) * scale


def seeded_image(seed, h, w):
    """(3,h,w) float32 in 0..255, smooth + noise: an 8x8-grid colour field upsampled by np.kron, noise, clip, rounded."""
    r = np.random.RandomState(seed)
    base = r.uniform(0, 255, size=(3, 8, 8))
    kh, kw = -(-h // 8), -(-w // 8)
    img = np.kron(base, np.ones((1, kh, kw)))[:, :h, :w] + r.standard_normal((3, h, w)) * 20
    return np.clip(np.rint(img), 0, 255).astype(np.float32)
