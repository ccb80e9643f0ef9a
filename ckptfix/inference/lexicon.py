"""What the field calls things: words that mean the same, wherever they are used.

General vocabulary of neural networks. Nothing here is about one library or one model.
"""

from __future__ import annotations

from functools import cache

_SYNONYMS = """
norm: norm ln layernorm rmsnorm bn batchnorm groupnorm gn normalization layrnorm norms lnorm instancenorm scalenorm
attention: attention attn att mha sa selfattention selfattn multihead
cross: cross crossattention crossattn xattn ca encdec
mlp: mlp ffn ff feedforward feed forward ffw feedfwd
query: query q wq queries qproj
key: key k wk keys kproj
value: value v wv values vproj
fused: qkv qvk kqv kvq vqk vkq wqkv inproj qkvproj
keyvalue: kv vk keyvalue
out: out output o wo outproj outputs
gate: gate gating
up: up upscale
down: down
token: token tokens tok word words wte vocab
position: position positional positions pos wpe posemb
segment: segment type tokentype
embed: embed embedding embeddings emb embeds embedder
class: class cls classes classification
box: box bbox boxes regression reg loc
classifier: head heads classifier predictions logits lm predictor classif
distilled: dist distillation distilled
mask: mask masked
patch: patch patches patchify
conv: conv convolution convolutional cnn
project: proj projection project projector projected pwl
linear: linear lin dense fc affine
downsample: downsample shortcut skip downsampling residual identity
reduce: reduce reduction squeeze
expand: expand expansion excite excitation
depthwise: dw depthwise dwconv
pointwise: pw pointwise
layerscale: layerscale ls lambda
visual: visual vision image img
text: text language txt
before: before pre input inputs first initial
after: after post second
final: final last
scale: scale gamma weight weights kernel g w
bias: bias beta offset shift b biases
mean: mean runningmean movingmean
variance: var variance runningvar movingvar movingvariance
relative: relative rel
table: table tables
pooler: pooler pooling pool
stem: stem root
expert: expert experts
router: router routing
encoder: encoder enc
decoder: decoder dec
spatial: spatial sr
continuous: continuous cpb
"""

_GENERIC = """
layer layers block blocks blk module modules model net network backbone body base trunk stage stages features self sub
resblks resblocks h main core inner seq sequential list cell unit op ops group transformer state dict default weight
weights param parameter parameters data tensor kernel
"""
GENERIC = frozenset(_GENERIC.split())
"""Words that say nothing of what a module does."""

_NEIGHBOURS = """
out classifier, linear classifier, out down, before embed, stem patch, encoder cross, mlp intermediate,
expand pointwise, expand before, project out, linear project, stem embed, before patch, final out, final after,
reduce project
"""
_NEAR = {frozenset(pair.split()) for pair in _NEIGHBOURS.split(",")}
"""Concepts that come near each other in some settings."""

_PURPOSES = """
attention cross mlp query key value fused keyvalue token position segment class classifier distilled mask downsample
layerscale visual text pooler expert router relative encoder decoder logitscale
"""
PURPOSES = frozenset(_PURPOSES.split())
"""Concepts that say what a tensor is for, rather than what it is."""

_TURNABLE = "up upsample upsampling fusion fuse refine refinenet refinement fpn pyramid lateral"
TURNABLE = frozenset(_TURNABLE.split())
"""Words of decoders of feature maps, whose blocks are counted from the coarsest map or from the finest."""


@cache
def _concepts() -> dict[str, str]:
    lines = (line.partition(":") for line in _SYNONYMS.strip().splitlines())
    return {word: concept.strip() for concept, _, words in lines for word in words.split()}


@cache
def concept(word: str) -> str:
    """Give the concept that a word stands for, the word itself where it is not known."""
    return _concepts().get(word, word)


def is_purpose(word: str) -> bool:
    """Tell whether a word says what a tensor is for."""
    return concept(word) in PURPOSES


@cache
def likeness(one: str, other: str) -> float:
    """Tell how alike two words are in meaning, 0 to 1: equal, synonyms, or one an abbreviation of the other."""
    if one == other:
        return 1.0
    if concept(one) == concept(other):
        return 0.95
    if frozenset((concept(one), concept(other))) in _NEAR:
        return 0.6
    short, long = sorted((one, other), key=len)
    if len(short) >= 3 and long.startswith(short):
        return 0.8
    if len(short) >= 3 and len(short) * 3 >= len(long) and short[0] == long[0] and _is_within(short, long):
        return 0.5
    return 0.0


def _is_within(short: str, long: str) -> bool:
    letters = iter(long)
    return all(letter in letters for letter in short)
