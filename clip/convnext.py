"""CLIP with a ConvNeXt image tower, as OpenCLIP's `convnext_base_w_320`. Needs open_clip_torch, which brings timm.

Parameters carry the names of OpenCLIP's checkpoints. Shapes as in clip/model.py; a position of the tower's last map
covers STRIDE x STRIDE pixels, and there is no CLS token.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from clip.form import HEAD_WIDTH, Form
from clip.model import count_layers, fill

if TYPE_CHECKING:
    import open_clip

STRIDE = 32
INPUT_RESOLUTION = 320  # of PixelCLIP's; the weights do not tell
FORM = Form('gelu', HEAD_WIDTH, 'gelu', HEAD_WIDTH)  # of all that are published; the image tower has no heads
# timm's name of the trunk with these blocks in, and this width of, each stage.
TRUNKS: Mapping[tuple[tuple[int, int], ...], str] = {
    ((3, 128), (3, 256), (27, 512), (3, 1024)): 'convnext_base',
}


class ConvNeXt(nn.Module):
    """The image tower: timm's trunk and OpenCLIP's projection head."""

    kind: ClassVar[str] = 'convnext'
    title: ClassVar[str] = 'ConvNeXt-B'

    def __init__(self, trunk: nn.Module, head: nn.Module, input_resolution: int = INPUT_RESOLUTION):
        super().__init__()
        self.input_resolution = input_resolution
        self.trunk = trunk
        self.head = head

    def read(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) -> the picture's feature (B, C), and those of the positions (B, h, w, C); not normalised.

        The picture's is CLIP's own: positions are averaged, then normed and projected. The positions' leave the
        averaging out: PixelCLIP.

        Raises:
            ValueError: the pictures are smaller than one position.
        """
        if min(images.shape[-2:]) < STRIDE:
            raise ValueError(
                f'a picture or window of {images.shape[-2]}x{images.shape[-1]} pixels is smaller than the '
                f"ConvNeXt's stride of {STRIDE}; resize it, or use a larger slide_crop"
            )
        dtype = next(self.trunk.parameters()).dtype
        x = self.trunk.forward_features(images.to(dtype))  # (B, D, h, w)
        whole = self.head(self.trunk.forward_head(x))
        return whole, self.head(self.trunk.head.norm(x).movedim(1, -1))

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C): CLIP's feature of the picture."""
        return self.read(images)[0]


class ConvNeXtCLIP(nn.Module):
    """What `clip.model.CLIP` offers, made of the parts of an OpenCLIP model."""

    def __init__(self, parts: 'open_clip.CLIP', form: Form = FORM):
        super().__init__()
        self.form = form
        self.visual = ConvNeXt(parts.visual.trunk, parts.visual.head)
        self.transformer = parts.transformer
        self.token_embedding = parts.token_embedding
        self.positional_embedding = parts.positional_embedding
        self.ln_final = parts.ln_final
        self.text_projection = parts.text_projection
        self.logit_scale = parts.logit_scale
        self.register_buffer('attn_mask', parts.attn_mask, persistent=False)  # causal

    @property
    def context_length(self) -> int:
        """Tokens that a text has room for."""
        return len(self.positional_embedding)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype both towers compute in."""
        return self.text_projection.dtype

    @property
    def device(self) -> torch.device:
        """The device the weights are on."""
        return self.text_projection.device

    def encode_image(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) normalised pictures -> (B, C), not normalised."""
        return self.visual(images)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """(B, context_length) token ids -> (B, C), not normalised; computed as far as the last EOT of the batch."""
        eot = tokens.argmax(dim=-1)  # (B,)
        return self.encode_embedded(self.token_embedding(tokens[:, : int(eot.max()) + 1]), eot)

    def encode_embedded(self, embedded: Tensor, eot: Tensor) -> Tensor:
        """Texts as token embeddings (B, n, D), read at their EOT (B,) -> (B, C), not normalised."""
        n = embedded.shape[1]
        x = self.transformer(embedded + self.positional_embedding[:n], attn_mask=self.attn_mask[:n, :n])
        at_eot = x[torch.arange(len(x), device=x.device), eot]  # (B, D)
        return self.ln_final(at_eot) @ self.text_projection

    def cast(self, dtype: torch.dtype) -> 'ConvNeXtCLIP':
        """Convert the weights to `dtype`, in place."""
        return self.to(dtype)


def has_convnext(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether a state dict is in OpenCLIP's layout of a CLIP whose image tower comes from timm."""
    return any(str(name).startswith('visual.trunk.') for name in state_dict)


def build_convnext(state_dict: Mapping[str, Tensor], form: Form = FORM) -> ConvNeXtCLIP:
    """A float32 CLIP, in eval mode, with the sizes and the weights of a state dict in OpenCLIP's layout.

    Raises:
        ValueError: open_clip_torch is missing, or the state dict is not a CLIP with a known ConvNeXt; says which.
    """
    try:
        import open_clip
    except ImportError as error:
        raise ValueError(
            f'a CLIP with a ConvNeXt image tower needs open_clip_torch ({error}): pip install open_clip_torch'
        ) from None
    try:
        stages = tuple(
            (
                count_layers(state_dict, f'visual.trunk.stages.{i}.blocks.'),
                len(state_dict[f'visual.trunk.stages.{i}.blocks.0.conv_dw.weight']),
            )
            for i in range(count_layers(state_dict, 'visual.trunk.stages.'))
        )
        if stages not in TRUNKS:
            raise ValueError(
                f'blocks and widths of its stages are {stages}, expected those of {", ".join(TRUNKS.values())}'
            )
        width, embed_dim = state_dict['text_projection'].shape
        text = dict(
            context_length=len(state_dict['positional_embedding']),
            vocab_size=len(state_dict['token_embedding.weight']),
            width=width,
            heads=width // form.text_head_width,
            layers=count_layers(state_dict, 'transformer.resblocks.'),
        )
    except KeyError as error:
        raise ValueError(f'not a CLIP with a ConvNeXt image tower: {error} is missing') from None
    except ValueError as error:
        raise ValueError(f'not a CLIP with a ConvNeXt image tower: {error}') from None
    vision = dict(timm_model_name=TRUNKS[stages], timm_pool='', timm_proj='linear', image_size=INPUT_RESOLUTION)
    parts = open_clip.CLIP(embed_dim, vision, text, quick_gelu=form.text_activation == 'quick_gelu')
    model = ConvNeXtCLIP(parts, form)
    return fill(model, state_dict, 'CLIP with a ConvNeXt image tower')
