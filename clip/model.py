"""CLIP with a ViT image tower, written from the architecture (Radford et al., 2021, arXiv:2103.00020).

Parameters carry the names of OpenAI's checkpoints. The image tower can be read as a whole
(`VisionTransformer.forward`) or piece by piece (`embed`, `transformer.resblocks`, `project`, and the
blocks' `attn.qkv` / `attn.merge`), which is what dense methods need.

Shapes: B pictures or texts; H, W pixels; h, w patch grid; N tokens (1 + h*w in the image tower, CLS
first); D tower width; C joint width; d head width.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip.form import OPENAI, Form


def normal(*shape: int, std: float) -> nn.Parameter:
    """A parameter that is drawn at random; on the meta device, where models get their weights later, only shaped.

    (Arithmetic there has PyTorch import its compiler, which takes seconds.)
    """
    drawn = torch.randn(shape)
    return nn.Parameter(drawn if drawn.is_meta else std * drawn)


class LayerNorm(nn.LayerNorm):
    """LayerNorm that computes in float32 and returns the dtype of its input."""

    def forward(self, x: Tensor) -> Tensor:
        if x.is_cuda and x.dtype == self.weight.dtype:  # whose kernel computes in float32, whatever it gets
            return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        weight, bias = self.weight.float(), self.bias.float()
        return F.layer_norm(x.float(), self.normalized_shape, weight, bias, self.eps).to(x.dtype)


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x), the activation OpenAI's CLIP was trained with."""

    def forward(self, x: Tensor) -> Tensor:
        return (1.702 * x).sigmoid_() * x  # two passes of memory fewer than written plainly


ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {'quick_gelu': QuickGELU, 'gelu': nn.GELU}


class Attention(nn.Module):
    """Multi-head self-attention whose parts can be used alone; parameters as in nn.MultiheadAttention."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def qkv(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, N, D) -> queries, keys, values, each (B, heads, N, d)."""
        projected = F.linear(x, self.in_proj_weight, self.in_proj_bias)  # (B, N, 3D)
        q, k, v = projected.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return q, k, v

    def merge(self, y: Tensor) -> Tensor:
        """(B, heads, N, d) -> (B, N, D): heads side by side, then the output projection."""
        return self.out_proj(y.transpose(1, 2).flatten(2))

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        q, k, v = self.qkv(x)
        return self.merge(F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask, is_causal=is_causal))


class ResidualAttentionBlock(nn.Module):
    """x + attention(ln_1(x)), then + mlp(ln_2(.))."""

    def __init__(self, width: int, heads: int, mlp_width: int, activation: str):
        super().__init__()
        self.attn = Attention(width, heads)
        self.ln_1 = LayerNorm(width)
        self.mlp = nn.Sequential(
            OrderedDict(
                c_fc=nn.Linear(width, mlp_width),
                gelu=ACTIVATIONS[activation](),
                c_proj=nn.Linear(mlp_width, width),
            )
        )
        self.ln_2 = LayerNorm(width)

    def feed_forward(self, x: Tensor) -> Tensor:
        """The second half of the block: x + mlp(ln_2(x))."""
        return x + self.mlp(self.ln_2(x))

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        return self.feed_forward(x + self.attn(self.ln_1(x), attn_mask, is_causal))


class Transformer(nn.Module):
    """A stack of residual attention blocks, `resblocks`, with heads of a width d and FFNs of a width.

    Raises:
        ValueError: the tower's width is no multiple of its heads'.
    """

    def __init__(self, width: int, layers: int, head_width: int, mlp_width: int, activation: str):
        super().__init__()
        if width % head_width:
            raise ValueError(f'a tower that is {width} wide cannot have heads {head_width} wide (--head-width)')
        heads = width // head_width
        self.resblocks = nn.ModuleList(
            ResidualAttentionBlock(width, heads, mlp_width, activation) for _ in range(layers)
        )

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        for block in self.resblocks:
            x = block(x, attn_mask, is_causal)
        return x


Resample = Callable[[Tensor, int, int], Tensor]


def resample_by_scale(patches: Tensor, h: int, w: int) -> Tensor:
    """(1, D, g, g) -> (1, D, h, w), bicubic, with the scale factors (h + 0.1)/g and (w + 0.1)/g.

    They are not recomputed from the size: most published dense results depend on these sampling points.
    """
    g_h, g_w = patches.shape[-2:]
    scale = ((h + 0.1) / g_h, (w + 0.1) / g_w)
    return F.interpolate(patches, scale_factor=scale, mode='bicubic', align_corners=False, recompute_scale_factor=False)


def resample_by_size(patches: Tensor, h: int, w: int) -> Tensor:
    """(1, D, g, g) -> (1, D, h, w), bicubic, so that the borders of the two grids coincide."""
    return F.interpolate(patches, (h, w), mode='bicubic', align_corners=False)


def resample_by_size_antialiased(patches: Tensor, h: int, w: int) -> Tensor:
    """As `resample_by_size`, with PyTorch's antialiasing, which also changes what an upsampling gives."""
    return F.interpolate(patches, (h, w), mode='bicubic', align_corners=False, antialias=True)


def resample_bilinear(patches: Tensor, h: int, w: int) -> Tensor:
    """(1, D, g, g) -> (1, D, h, w), bilinear, so that the borders of the two grids coincide."""
    return F.interpolate(patches, (h, w), mode='bilinear', align_corners=False)


# Blocks and width of image towers -> what they are called.
LETTERS: Mapping[tuple[int, int], str] = {
    (12, 768): 'B',
    (24, 1024): 'L',
    (32, 1280): 'H',
    (40, 1408): 'g',
    (48, 1664): 'bigG',
}


class VisionTransformer(nn.Module):
    """CLIP's image tower; its FFNs are four times as wide as it, where nothing else is said."""

    kind: ClassVar[str] = 'vit'

    def __init__(
        self,
        input_resolution: int,
        patch_size: int,
        width: int,
        layers: int,
        output_dim: int,
        mlp_width: int | None = None,
        form: Form = OPENAI,
    ):
        super().__init__()
        self.input_resolution = input_resolution
        self.patch_size = patch_size
        self.native_grid = input_resolution // patch_size
        self.conv1 = nn.Conv2d(3, width, kernel_size=patch_size, stride=patch_size, bias=False)
        scale = width**-0.5
        self.class_embedding = normal(width, std=scale)
        self.positional_embedding = normal(self.native_grid**2 + 1, width, std=scale)
        self.ln_pre = LayerNorm(width)
        self.transformer = Transformer(width, layers, form.head_width, mlp_width or 4 * width, form.activation)
        self.ln_post = LayerNorm(width)
        self.proj = normal(width, output_dim, std=scale)

    @property
    def title(self) -> str:
        """What the tower is called, as 'ViT-B/16'; of one that has no name, its blocks, width and patches."""
        blocks, width = len(self.transformer.resblocks), len(self.class_embedding)
        if (blocks, width) in LETTERS:
            return f'ViT-{LETTERS[blocks, width]}/{self.patch_size}'
        return f'a ViT of {blocks} blocks, {width} wide, patch {self.patch_size}'

    def check_size(self, images: Tensor) -> None:
        """Make sure that pictures (B, 3, H, W) have a patch.

        Raises:
            ValueError: they are smaller.
        """
        if min(images.shape[-2:]) < self.patch_size:
            raise ValueError(
                f'a picture or window of {images.shape[-2]}x{images.shape[-1]} pixels is smaller than one '
                f'{self.patch_size}-pixel patch; resize it, or use a larger slide_crop'
            )

    def embed(self, images: Tensor, resample: Resample = resample_by_scale) -> tuple[Tensor, tuple[int, int]]:
        """(B, 3, H, W) -> the tokens that enter the first block (B, N, D), and their patch grid (h, w).

        Pixels right of and below the last whole patch are dropped, as CLIP's stem does. `resample` carries the
        positional embedding to the grid.

        Raises:
            ValueError: the pictures are smaller than one patch.
        """
        self.check_size(images)
        patches = self.conv1(images.to(self.conv1.weight.dtype))  # (B, D, h, w)
        h, w = patches.shape[-2:]
        patches = patches.flatten(2).transpose(1, 2)  # (B, h*w, D)
        cls = self.class_embedding.to(patches.dtype).expand(len(patches), 1, -1)
        tokens = torch.cat([cls, patches], dim=1)  # (B, N, D)
        position = self.resampled_positional_embedding(h, w, resample)
        return self.ln_pre(tokens + position.to(tokens.dtype)), (h, w)

    def resampled_positional_embedding(self, h: int, w: int, resample: Resample = resample_by_scale) -> Tensor:
        """The positional embedding on an (h, w) grid: (1 + h*w, D); its patch part is resampled off the native grid."""
        g = self.native_grid
        if (h, w) == (g, g):
            return self.positional_embedding
        cls, patches = self.positional_embedding.float().split([1, g * g])
        patches = resample(patches.T.unflatten(1, (g, g))[None], h, w)  # (1, D, h, w)
        return torch.cat([cls, patches[0].flatten(1).T])

    def project(self, tokens: Tensor) -> Tensor:
        """(..., D) tokens after the last block -> (..., C) in the joint space, not normalised."""
        return self.ln_post(tokens) @ self.proj

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C): the projected CLS token."""
        tokens, _ = self.embed(images)
        return self.project(self.transformer(tokens)[:, 0])


class CLIP(nn.Module):
    """Image tower, text tower and the temperature of their similarity.

    FFNs are four times as wide as their tower where nothing else is said.
    """

    def __init__(
        self,
        embed_dim: int,
        image_resolution: int,
        vision_layers: int,
        vision_width: int,
        vision_patch_size: int,
        context_length: int,
        vocab_size: int,
        transformer_width: int,
        transformer_layers: int,
        vision_mlp_width: int | None = None,
        transformer_mlp_width: int | None = None,
        form: Form = OPENAI,
    ):
        super().__init__()
        self.form = form
        self.context_length = context_length
        self.visual = VisionTransformer(
            image_resolution,
            vision_patch_size,
            vision_width,
            vision_layers,
            embed_dim,
            vision_mlp_width,
            form,
        )
        self.transformer = Transformer(
            transformer_width,
            transformer_layers,
            form.text_head_width,
            transformer_mlp_width or 4 * transformer_width,
            form.text_activation,
        )
        self.token_embedding = nn.Embedding.from_pretrained(
            normal(vocab_size, transformer_width, std=1.0), freeze=False
        )
        self.positional_embedding = normal(context_length, transformer_width, std=0.01)
        self.ln_final = LayerNorm(transformer_width)
        self.text_projection = normal(transformer_width, embed_dim, std=transformer_width**-0.5)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    @property
    def dtype(self) -> torch.dtype:
        """The dtype both towers compute in."""
        return self.visual.conv1.weight.dtype

    @property
    def device(self) -> torch.device:
        """The device the weights are on."""
        return self.visual.conv1.weight.device

    def encode_image(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) normalised pictures -> (B, C), not normalised."""
        return self.visual(images)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """(B, context_length) token ids -> (B, C), not normalised.

        The tower is causal and is read at EOT (the highest id), so positions after the last EOT of the batch
        cannot matter and are not computed.
        """
        eot = tokens.argmax(dim=-1)  # (B,)
        return self.encode_embedded(self.token_embedding(tokens[:, : int(eot.max()) + 1]), eot)

    def encode_embedded(self, embedded: Tensor, eot: Tensor) -> Tensor:
        """Texts as token embeddings (B, n, D), read at their EOT (B,) -> (B, C), not normalised."""
        x = embedded.to(self.dtype) + self.positional_embedding[: embedded.shape[1]].to(self.dtype)
        x = self.transformer(x, is_causal=True)
        at_eot = x[torch.arange(len(x), device=x.device), eot]  # (B, D)
        return self.ln_final(at_eot) @ self.text_projection

    def forward(self, images: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Scaled cosine similarities, (pictures, texts) and (texts, pictures)."""
        image_features = F.normalize(self.encode_image(images), dim=-1)
        text_features = F.normalize(self.encode_text(tokens), dim=-1)
        logits = self.logit_scale.exp() * image_features @ text_features.T
        return logits, logits.T

    def cast(self, dtype: torch.dtype) -> 'CLIP':
        """Convert the weights to `dtype`, in place, but for the LayerNorms, which stay float32."""
        self.to(dtype)
        for module in self.modules():
            if isinstance(module, LayerNorm):
                module.float()
        return self


OPENAI_ENTRIES = ('input_resolution', 'context_length', 'vocab_size')  # numbers among the weights of OpenAI's archives


def build_model(state_dict: Mapping[str, Tensor], form: Form = OPENAI) -> CLIP:
    """A float32 CLIP, in eval mode, with the sizes and the weights of a state dict in OpenAI's layout.

    The state dict does not tell the towers' form; what is not said to have another is taken for OpenAI's.

    Raises:
        ValueError: the state dict is not a CLIP with a ViT image tower, or not of this form; says what is missing,
            superfluous or does not fit.
    """
    weights = {k: v for k, v in state_dict.items() if k not in OPENAI_ENTRIES}
    with torch.device('meta'):
        model = CLIP(**sizes_of(weights), form=form)
    return fill(model, weights, 'CLIP checkpoint with a ViT image tower')


def fill(model: nn.Module, weights: Mapping[str, Tensor], what: str, of: str = 'CLIP') -> nn.Module:
    """Give a model, which is `what`, exactly these weights, in float32, and put it in eval mode.

    Raises:
        ValueError: names or shapes differ; says which.
    """
    expected = model.state_dict()
    wrong = [f'{name} is missing' for name in expected if name not in weights]
    wrong += [f'{name} is not part of {of}' for name in weights if name not in expected]
    wrong += [
        f'{name} has shape {tuple(weights[name].shape)}, expected {tuple(tensor.shape)}'
        for name, tensor in expected.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    if wrong:
        more = f' and {len(wrong) - 3} more' if len(wrong) > 3 else ''
        raise ValueError(f'not a {what}: {"; ".join(wrong[:3])}{more}')
    model.load_state_dict({name: tensor.float() for name, tensor in weights.items()}, assign=True)
    return model.eval()


def count_layers(weights: Mapping[str, Tensor], prefix: str) -> int:
    """How many different numbers follow a prefix in the names of a state dict."""
    return len({name.split('.')[prefix.count('.')] for name in weights if name.startswith(prefix)})


def sizes_of(weights: Mapping[str, Tensor]) -> dict[str, int]:
    """The arguments of `CLIP` that a state dict in OpenAI's layout implies.

    Raises:
        ValueError: it is not a CLIP with a ViT image tower.
    """
    if 'visual.layer1.0.conv1.weight' in weights:
        raise ValueError('a CLIP with a ResNet image tower, which has no patch tokens; use one with a ViT')

    try:
        vision_width, _, patch_size, _ = weights['visual.conv1.weight'].shape
        grid = round((len(weights['visual.positional_embedding']) - 1) ** 0.5)
        transformer_width, embed_dim = weights['text_projection'].shape
        return dict(
            embed_dim=embed_dim,
            image_resolution=grid * patch_size,
            vision_layers=count_layers(weights, 'visual.transformer.resblocks.'),
            vision_width=vision_width,
            vision_patch_size=patch_size,
            context_length=len(weights['positional_embedding']),
            vocab_size=len(weights['token_embedding.weight']),
            transformer_width=transformer_width,
            transformer_layers=count_layers(weights, 'transformer.resblocks.'),
            vision_mlp_width=_mlp_width(weights, 'visual.transformer.', vision_width),
            transformer_mlp_width=_mlp_width(weights, 'transformer.', transformer_width),
        )
    except KeyError as error:
        raise ValueError(f'not a CLIP checkpoint with a ViT image tower: {error} is missing') from None
    except ValueError as error:
        raise ValueError(f'not a CLIP checkpoint with a ViT image tower: unexpected shapes ({error})') from None


def _mlp_width(weights: Mapping[str, Tensor], prefix: str, width: int) -> int:
    """The width of a tower's FFNs; where the weights lack the first, as usual."""
    name = f'{prefix}resblocks.0.mlp.c_fc.weight'
    return len(weights[name]) if name in weights else 4 * width
