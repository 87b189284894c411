"""Pretrained features of the images of a trial, extracted once."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import DefaultScope

from tjls_mm.errors import InputError
from tjls_mm.image_ids import read_image_ids, write_image_ids
from tjls_mm.models.pretrained_features import PretrainedFeatures
from tjls_mm.outputs import Outputs, gather_outputs
from tjls_mm.outputs.gather import fingerprint
from tjls_mm.outputs.outputs import blocks
from tjls_mm.outputs.vocabulary import PRETRAINED_FEATURE
from tjls_mm.processes import on_main_process
from tjls_mm.registry import DATASETS, MODELS
from tjls_mm.stage_folder import TrialFolder

if TYPE_CHECKING:
    from tjls_mm.active.plan import TrialPlan


def build_features(
    cfg: Config, config: Mapping, load: bool = False
) -> PretrainedFeatures:
    """The model of ``method.features``, with its weights where ``load`` says so.

    Raises:
        InputError: If it cannot be built, or the weights are of another backbone.
    """
    scope = DefaultScope.overwrite_default_scope(cfg.get('default_scope'))
    with scope, torch.random.fork_rng(devices=[]):
        try:
            model = MODELS.build(copy.deepcopy(config))
            if not isinstance(model, PretrainedFeatures):
                raise TypeError(f'{type(model).__name__} is no PretrainedFeatures')
            if load:
                model.init_weights()
            return model.eval()
        except InputError:
            raise
        # Constructors raise whatever they like.
        except Exception as error:
            raise InputError(
                f'method.features cannot be built ({type(error).__name__}: {error}). '
                "Write dict(type='tjls_mm.PretrainedFeatures'), and in it backbone, "
                'mean, std and size unless they are those of EfficientNet-Lite0.'
            ) from error


def describe_features(model: PretrainedFeatures) -> dict[str, str]:
    """``backbone`` and ``weights``, a hash of these and of how images reach them."""
    return {
        'backbone': type(model.backbone).__name__,
        'weights': fingerprint(model),
    }


def extract_features(
    model: PretrainedFeatures, plan: TrialPlan, folder: TrialFolder
) -> Outputs:
    """``pretrained_feature`` of all labelled and pool images, on all processes.

    What the folder holds of the same images and weights is not computed again.

    Raises:
        InputError: If a number is not finite.
    """
    on_main_process(_write_list, folder, plan.image_ids)
    pipeline = [dict(type='tjls_mm.LoadSquare', size=model.size)]
    dataset = plan.source.pool_dataset(str(folder.feature_list.absolute()))
    with DefaultScope.overwrite_default_scope(plan.cfg.get('default_scope')):
        outputs = gather_outputs(
            model.to(get_device()),
            DATASETS.build({**dataset, 'test_mode': True, 'pipeline': pipeline}),
            folder.features,
            [PRETRAINED_FEATURE],
            list_file=folder.feature_list,
            batch_size=model.batch_size,
            num_workers=model.num_workers,
            description='Pretrained features',
        )
    on_main_process(_check_finite, outputs)
    return outputs


def _check_finite(outputs: Outputs) -> None:
    for start, block in blocks(outputs[PRETRAINED_FEATURE]):
        finite = np.isfinite(block).all(1)
        if not finite.all():
            image_id = outputs.image_ids[start + finite.argmin()]
            raise InputError(
                f'method.features: the features of {image_id!r} are not finite. '
                'Correct mean and std, or use other weights.'
            )


def _write_list(folder: TrialFolder, image_ids: list[str]) -> None:
    path = folder.feature_list
    if not path.exists() or read_image_ids(path) != image_ids:
        write_image_ids(path, image_ids)


def features_of(features: Outputs, image_ids: Sequence[str]) -> np.ndarray:
    """Rows of ``pretrained_feature`` of some images, (N, F)."""
    row = {image_id: i for i, image_id in enumerate(features.image_ids)}
    rows = np.array([row[image_id] for image_id in image_ids], np.int64)
    return features[PRETRAINED_FEATURE][rows]
