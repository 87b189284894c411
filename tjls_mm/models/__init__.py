"""Bottlenecks, branches and the heads they are trained with."""

from importlib.util import find_spec

from tjls_mm import compat  # mmdet.models needs its stand-ins

from .batch_bottleneck import (
    BatchBottleneck,
    ContextBank,
    batch_bottlenecks,
    fill_context_banks,
)
from .batch_gcn import BatchGCN
from .batch_transformer import BatchTransformer
from .branch import Branch, BranchInputs, JointLearner, find_joint_learner
from .discriminator_head import DiscriminatorHead
from .joint_parts import add_joint_parts
from .wide_resnet import WideResNet

__all__ = ['BatchBottleneck', 'BatchGCN', 'BatchTransformer', 'Branch', 'BranchInputs']
__all__ += ['ContextBank', 'DiscriminatorHead', 'JointLearner', 'WideResNet']
__all__ += ['add_joint_parts', 'batch_bottlenecks', 'fill_context_banks']
__all__ += ['find_joint_learner']

if find_spec('mmdet') is not None:
    from .joint_ssd_head import JointSSDHead  # noqa: F401

    compat.mend_ssd_head()
    __all__.append('JointSSDHead')

if find_spec('mmpretrain') is not None:
    from .cls_data_preprocessor import JointClsDataPreprocessor  # noqa: F401
    from .joint_cls_head import JointClsHead  # noqa: F401

    __all__ += ['JointClsDataPreprocessor', 'JointClsHead']
