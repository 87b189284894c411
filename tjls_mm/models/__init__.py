"""Bottlenecks, branches and the heads they are trained with."""
# ruff: noqa: F401

from importlib.util import find_spec

from tjls_mm import compat  # mmdet.models needs its stand-ins

from .batch_bottleneck import BatchBottleneck, batch_bottlenecks, fill_context_banks
from .batch_gcn import BatchGCN
from .batch_transformer import BatchTransformer
from .branch import Branch, BranchInputs, JointLearner, find_joint_learner
from .discriminator_head import DiscriminatorHead
from .efficientnet_lite import EfficientNetLite0
from .frozen_backbone import FrozenBackbone
from .joint_parts import add_joint_parts
from .pretrained_features import PretrainedFeatures
from .wide_resnet import WideResNet

if find_spec('mmdet') is not None:
    from .confidence_vectors import ConfidenceFlatten, ConfidenceGrid, ConfidenceStats
    from .joint_detector import JointDetector, JointDetectorMixin

    compat.mend_ssd_head()

if find_spec('mmpretrain') is not None:
    from .cls_data_preprocessor import JointClsDataPreprocessor
    from .joint_cls_head import JointClsHead
