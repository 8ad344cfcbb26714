"""Vision transformers (Dosovitskiy et al., 2010.11929) as MoCo v3 (2104.02057) trains them, parameters named as timm's.

    x_0 = [c; patches E] + P                   class token c, patch projection E, positions P
    x'  = x + attention(norm(x))               twelve pre-norm blocks
    x   = x' + mlp(norm(x'))                   mlp: four times as wide inside, GELU
    y   = norm(x_12)[0]                        the class token

P of `sincos` is not learned: half of the channels hold sines and cosines of a patch's row, the other half of its column, at
frequencies 10000^(-i / (D/4)); the class token has none. It exists for a grid of any size, so views may be of several sizes.
P of `learned` is a parameter, the class token's first; over a grid of another size it is stretched, bicubic (DINO, 2104.14294).

Parameters without a head, in millions: Tiny 5.5, Small 21.7, Base 85.8 at 224 / 16 with the positions, which timm counts.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.encoders.config import EncoderConfig
from methods.gather import rank

CHANNELS = {"vit_tiny": 192, "vit_small": 384, "vit_base": 768}
_DEPTH = 12
_EPS = 1e-6
# Of splitmix64, as signed integers.
_GOLDEN, _MIX_1, _MIX_2 = -0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15


def positions(rows: int, columns: int, channels: int, like: Tensor) -> Tensor:
    """rows * columns x channels, row by row: sin and cos of the row, then of the column."""
    quarter = channels // 4
    precise = like.dtype if like.dtype == torch.float64 else torch.float32
    frequencies = 10000.0 ** (-torch.arange(quarter, device=like.device, dtype=precise) / quarter)

    def waves(count: int) -> Tensor:  # count x channels / 2
        angles = torch.arange(count, device=like.device, dtype=precise)[:, None] * frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=1)

    down = waves(rows)[:, None].expand(rows, columns, -1)
    across = waves(columns)[None].expand(rows, columns, -1)
    return torch.cat([down, across], dim=2).flatten(0, 1).to(like.dtype)


def stretched(learned: Tensor, rows: int, columns: int) -> Tensor:
    """1 x (1 + G^2) x D -> 1 x (1 + rows * columns) x D: the patches' positions over another grid, the class token's as it is.

    The same numbers as DINO's released code, whose scale is that of a grid a tenth of a patch larger: against rounding.
    """
    grid = math.isqrt(learned.shape[1] - 1)
    if (rows, columns) == (grid, grid):
        return learned
    square = learned[:, 1:].unflatten(1, (grid, grid)).permute(0, 3, 1, 2)  # 1 x D x G x G
    scale = [(rows + 0.1) / grid, (columns + 0.1) / grid]
    patches = F.interpolate(square, scale_factor=scale, mode="bicubic").flatten(2).transpose(1, 2)
    return torch.cat([learned[:, :1], patches], dim=1)


class PatchEmbed(nn.Module):
    """B x C x H x W -> B x T x D, row by row: each patch, flattened, through one linear map."""

    def __init__(self, config: EncoderConfig, inputs: int, channels: int) -> None:
        super().__init__()
        self.size = config.patch_size
        self.proj = nn.Conv2d(inputs, channels, self.size, self.size)
        xavier_uniform(self.proj.weight, inputs * self.size**2, channels)
        nn.init.zeros_(self.proj.bias)  # type: ignore[arg-type]
        if config.patch_projection == "frozen":
            self.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images).flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """softmax(q k^T / sqrt(d)) v in each head, then a linear map."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        # Queries, keys and values are three matrices in one.
        xavier_uniform(self.qkv.weight, channels, channels)
        xavier_uniform(self.proj.weight, channels, channels)
        nn.init.zeros_(self.qkv.bias)
        nn.init.zeros_(self.proj.bias)

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # B x T x D -> 3 of B x heads x T x d
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return q, k, v

    def forward(self, x: Tensor) -> Tensor:
        out = F.scaled_dot_product_attention(*self._split(x))  # softmax of the weights times v: B x heads x T x d
        return self.proj(out.transpose(1, 2).flatten(2))

    def weights(self, x: Tensor) -> Tensor:
        """B x heads x T x T: how much each token (row) takes of each (column)."""
        q, k, _ = self._split(x)
        return torch.softmax(q @ k.transpose(2, 3) / math.sqrt(q.shape[3]), dim=3)


class Mlp(nn.Module):
    """linear, GELU, linear."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, 4 * channels)
        self.fc2 = nn.Linear(4 * channels, channels)
        for layer in (self.fc1, self.fc2):
            xavier_uniform(layer.weight, layer.in_features, layer.out_features)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, _EPS)
        self.attn = Attention(channels, heads)
        self.norm2 = nn.LayerNorm(channels, _EPS)
        self.mlp = Mlp(channels)

    def forward(self, x: Tensor, kept: Tensor | None = None) -> Tensor:  # kept: 2 x B x 1 x 1, of the two branches
        y = self.attn(self.norm1(x))
        x = x + (y if kept is None else y * kept[0])
        y = self.mlp(self.norm2(x))
        return x + (y if kept is None else y * kept[1])


# NOTE(departs): Every ViT has MoCo v3's Xavier-uniform weights and class token near zero, and its fixed sin-cos positions
# unless `positions` says otherwise; DINO's released code learns its positions and draws them, the class token and the weights
# of linear layers from a truncated normal of deviation 0.02.
# NOTE(departs): With sin-cos positions a patch of a smaller view has the position of its row and column, so that a local crop
# has the positions of a large view's upper left corner; DINO's released code stretches its learned positions over the crop.
# NOTE(departs): A ViT has one attention head for every 64 channels unless `heads` says otherwise, as timm's and DINO's;
# MoCo v3's ViT-Small has 12 heads of 32 channels.
class ViT(nn.Module):
    """B x C x H x W -> B x out_dim, with H and W multiples of the patch size."""

    draws: Tensor

    def __init__(self, config: EncoderConfig, inputs: int = 3) -> None:
        super().__init__()
        self.config = config
        channels = max(1, round(CHANNELS[config.name] * config.width))
        heads = config.heads or max(1, channels // 64)
        if channels % 4 or channels % heads:
            found = f"'{config.name}' of width {config.width} has {channels} channels and {heads} heads"
            raise ValueError(f"encoder {found}; channels must be a multiple of 4 and of heads")
        self.patch_embed = PatchEmbed(config, inputs, channels)
        self.cls_token = nn.Parameter(torch.empty(1, 1, channels))
        nn.init.normal_(self.cls_token, std=1e-6)
        self.blocks = nn.ModuleList([Block(channels, heads) for _ in range(_DEPTH)])
        self.norm = nn.LayerNorm(channels, _EPS)
        self.drop_path = config.drop_path
        if self.drop_path:
            # A key of this network's own, and how often it has drawn: what a resumed run needs to draw on.
            self.register_buffer("draws", torch.stack([torch.randint(2**62, ()), torch.tensor(0)]))
        self.out_dim = channels
        self.pos_embed: nn.Parameter | None = None
        if config.positions == "learned":  # the last to be drawn: all else starts alike
            self.pos_embed = nn.Parameter(torch.empty(1, 1 + config.grid**2, channels))
            nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def forward(self, images: Tensor) -> Tensor:
        x = self._tokens(images)
        kept = self._kept(len(x))
        for i, block in enumerate(self.blocks):
            x = block(x, None if kept is None else kept[i])
        return self.norm(x[:, 0])

    def intermediate(self, images: Tensor, n: int, patch_mean: bool = False) -> Tensor:
        """B x n x D: the class token after each of the last n blocks, through the last norm; DINO's linear probe takes 4.

        patch_mean: one more, the mean of the last block's patch tokens through that norm, which DINO's takes of a ViT-Base.
        """
        if not 1 <= n <= len(self.blocks):
            raise ValueError(f"n must be in [1, {len(self.blocks)}], the number of blocks, not {n}")
        x, found = self._tokens(images), []
        for block in self.blocks:
            x = block(x)
            found.append(x[:, 0])
        tokens = self.norm(torch.stack(found[-n:], dim=1))
        return torch.cat([tokens, self.norm(x[:, 1:]).mean(dim=1, keepdim=True)], dim=1) if patch_mean else tokens

    def attention(self, images: Tensor) -> Tensor:
        """B x heads x T x T: the last block's attention; token 0 is the class token, then the patches row by row."""
        x = self._tokens(images)
        for block in self.blocks[:-1]:
            x = block(x)
        last = self.blocks[-1]
        return last.attn.weights(last.norm1(x))  # type: ignore[operator, union-attr]

    def _tokens(self, images: Tensor) -> Tensor:  # B x T x D
        size, (height, width) = self.patch_embed.size, images.shape[2:]
        if height % size or width % size:
            raise ValueError(f"a view of {height} x {width} does not divide into patches of {size} x {size} (patch_size)")
        rows, columns = height // size, width // size
        x = self.patch_embed(images)
        if self.pos_embed is None:
            x = x + positions(rows, columns, self.out_dim, self.cls_token)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1).to(x.dtype), x], dim=1)
        return x if self.pos_embed is None else x + stretched(self.pos_embed, rows, columns)

    def _kept(self, batch: int) -> Tensor | None:
        """depth x 2 x B x 1 x 1: 0 where a sample skips a branch, else 1 / (1 - rate). None where nothing is dropped.

        Each number is a hash of the network's key, how many draws came before, the branch and the sample's place in the
        batch of all ranks: the same in a resumed run and on any number of ranks, and known without leaving the device.
        """
        if not (self.drop_path and self.training and torch.is_grad_enabled()):
            return None
        device, dtype = self.cls_token.device, self.cls_token.dtype
        rates = torch.linspace(0.0, self.drop_path, len(self.blocks), device=device, dtype=dtype).view(-1, 1, 1, 1, 1)
        key = mixed(self.draws[0] + self.draws[1] * _GOLDEN)
        rows = torch.arange(batch, device=device) + rank() * batch
        branches = torch.arange(2 * len(self.blocks), device=device)
        drawn = mixed(mixed(key + rows * _GOLDEN) + branches[:, None] * _GOLDEN)  # 2 depth x B
        uniform = (drawn & 0xFFFFFF).to(rates.dtype) / 2**24  # in [0, 1)
        self.draws[1] += 1
        return (uniform.view(len(self.blocks), 2, batch, 1, 1) >= rates).to(rates.dtype) / (1.0 - rates)


def mixed(x: Tensor) -> Tensor:
    """splitmix64's finalizer, on int64: every bit of the result depends on every bit of x."""
    x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * _MIX_1  # the mask makes it a logical shift
    x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * _MIX_2
    return x ^ ((x >> 31) & 0x1FFFFFFFF)


def xavier_uniform(weight: Tensor, inputs: int, outputs: int) -> None:
    """Uniform in +- sqrt(6 / (inputs + outputs)), for a weight that is not, as it is stored, one matrix of that shape."""
    bound = math.sqrt(6.0 / (inputs + outputs))
    nn.init.uniform_(weight, -bound, bound)
