"""Wide residual networks for small images."""

import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from tjls_mm.registry import MODELS


class _WideBlock(BaseModule):
    def __init__(self, width: int, out: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(width)
        self.conv1 = nn.Conv2d(width, out, 3, stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        same = width == out and stride == 1
        self.shortcut = None if same else nn.Conv2d(width, out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        activated = F.relu(self.norm1(x))
        skip = x if self.shortcut is None else self.shortcut(activated)
        out = self.conv1(activated)
        return skip + self.conv2(self.dropout(F.relu(self.norm2(out))))


@MODELS.register_module()
class WideResNet(BaseModule):
    """WRN-depth-widen_factor for images of about 32 x 32 pixels.

    Args:
        depth: Layers, 6 n + 4; another number is a ValueError.
        widen_factor: Multiple of the widths 16, 32 and 64 of its three stages.
        dropout: Between the convolutions of a block, in [0, 1).

    Source: Zagoruyko and Komodakis, Wide Residual Networks, 2016.
    """

    def __init__(
        self,
        depth: int = 28,
        widen_factor: int = 10,
        dropout: float = 0.3,
        in_channels: int = 3,
        init_cfg: dict | list | None = (
            dict(type='Kaiming', layer='Conv2d', mode='fan_out'),
            dict(type='Constant', val=1, layer='BatchNorm2d'),
        ),
    ) -> None:
        super().__init__(list(init_cfg) if isinstance(init_cfg, tuple) else init_cfg)
        if depth < 10 or (depth - 4) % 6:
            raise ValueError(f'depth must be 6 n + 4 with n >= 1, got {depth}')
        width = 16
        self.conv = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        blocks = []
        for stage, base in enumerate((16, 32, 64)):
            for i in range((depth - 4) // 6):
                stride = 2 if stage and i == 0 else 1
                blocks.append(_WideBlock(width, base * widen_factor, stride, dropout))
                width = base * widen_factor
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """Images (B, in_channels, H, W) to (B, 64 * widen_factor, H / 4, W / 4)."""
        return (F.relu(self.norm(self.blocks(self.conv(x)))),)
