"""What a trial will do, checked before it does anything."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from mmengine.config import Config

from tjls_mm.active.budgets import expand_budgets, fit_budgets, image_count
from tjls_mm.active.checks import (
    feature_problems,
    initial_problems,
    learner_problems,
    missing_weights,
    need_problems,
    part_problems,
    section_problems,
    split_problems,
    weight_problems,
)
from tjls_mm.active.features import build_features
from tjls_mm.active.learner import inspect_learner
from tjls_mm.active.manifest import TrialFacts, flatten_config
from tjls_mm.active.schedule import build_schedulers
from tjls_mm.active.settings import read_settings
from tjls_mm.active.stage_config import StageDeriver, StageInputs
from tjls_mm.compat import loading_on_this_process
from tjls_mm.errors import InputError, raise_first
from tjls_mm.image_ids import read_image_ids
from tjls_mm.outputs import Needs
from tjls_mm.outputs.vocabulary import PRETRAINED_FEATURE
from tjls_mm.query import QueryStrategy, select_random
from tjls_mm.randomness import derive_seed
from tjls_mm.registry import ANNOTATORS, IMAGE_SOURCES, QUERIES, build_own
from tjls_mm.stage_folder import TrialFolder


class TrialPlan:
    """What a trial will do, checked: InputError if something does not fit.

    ``image_ids`` (labelled and pool), ``test_ids`` and ``initial`` (``n_initial``
    labelled at stage 0; None where ``first_query`` is to choose them) are sorted; the
    other attributes are what the sections of the config describe.
    """

    def __init__(self, cfg: Config, world_size: int = 1) -> None:
        self.cfg = cfg
        self.settings, self.method = read_settings(cfg)
        raise_first(section_problems(cfg))
        raise_first(part_problems(cfg))
        self.seed = cfg.randomness.seed
        self.folder = TrialFolder(cfg.get('work_dir') or 'work_dirs')
        self.source = build_own(IMAGE_SOURCES, cfg.data_source)
        self.query = self._build_query(self.method.query)
        self.annotator = build_own(ANNOTATORS, self.settings.annotator)
        raise_first(self.annotator.problems(self.source))
        raise_first(self.source.work_dir_problems(self.folder.path))
        self.image_ids = self.source.list_images('pool')
        self.test_ids = self.source.list_images('test')
        raise_first(split_problems(self.image_ids, self.test_ids))
        self.first_query, self.initial = None, None
        if isinstance(self.settings.initial, Mapping):
            self._read_first_query(dict(self.settings.initial))
        else:
            self.initial = self._initial(self.settings.initial)
            self.n_initial = len(self.initial)
        self._check_features()
        # The learner is asked for the rest.
        needs = self.query.needs.without(PRETRAINED_FEATURE)
        self.learner = inspect_learner(cfg, self.method, (*needs.pool, *needs.gathered))
        raise_first(learner_problems(cfg, self.source, self.learner))
        raise_first(need_problems(self.method, needs, self.learner))
        needs = self._with_predictions(needs)
        self.deriver = StageDeriver(
            cfg, self.source, self.settings, self.method, self.learner, needs
        )
        self._try_stage(world_size)

    def _with_predictions(self, needs: Needs) -> Needs:
        """Beside what is asked of the pool anyway, what helps whoever labels."""
        known = self.learner.provides
        asks = needs.pool or needs.gathered or 'logit' in known
        detects = self.source.task == 'detection'
        name = 'boxes' if detects else 'probability'
        wanted = self.annotator.suggest_above is not None and asks and name in known
        if not wanted or name in needs.pool:
            return needs
        return replace(needs, pool=(*needs.pool, name))

    @property
    def n_stages(self) -> int:
        """Number of stages."""
        return self.settings.stages

    @property
    def facts(self) -> TrialFacts:
        """What results depend on."""
        return TrialFacts(
            config=flatten_config(self.cfg),
            seed=self.seed,
            image_ids=self.image_ids,
            test_ids=self.test_ids,
            initial=self.initial,
            initial_listed=isinstance(self.settings.initial, str),
        )

    def budget(self, number: int, n_labelled: int) -> int:
        """Images to select after a stage, 0 after the last.

        Budgets are what is left now: InputError if this one and those to come do not
        fit beside the labelled images of the stage.
        """
        total, settings = len(self.image_ids), self.settings
        budgets = expand_budgets(total, settings.budget, self.n_stages)[number:]
        short = settings.allow_short_stage
        budgets = fit_budgets(total, n_labelled, budgets, number, short)
        left = total - n_labelled - sum(budgets)
        if self.learner.uses_pool and left < 1:
            raise InputError(
                'The last stage leaves no image in the pool, and a branch of '
                'method.branches trains on labelled and pool images: plan one stage '
                'less or smaller budgets. (Training on all labels is the method of '
                'the *_full configs.)'
            )
        return budgets[0] if budgets else 0

    def _try_stage(self, world_size: int) -> None:
        """Whatever a stage config refuses, it refuses now."""
        folder = self.folder
        n_labelled = self.n_initial
        n_pool = len(self.image_ids) - n_labelled
        stage = StageInputs(
            0, folder.stage(0), n_labelled, n_pool, folder.test, world_size
        )
        try:
            derived = self.deriver.derive(stage)
            build_schedulers(derived.param_scheduler)
        except InputError:
            raise
        # Numbers that are none, lists that are dicts, and what constructors raise.
        except Exception as error:
            raise InputError(
                f'A stage cannot be made of this config ({type(error).__name__}: '
                f'{error}). Correct train_cfg, param_scheduler, the data loaders or '
                'the hooks.'
            ) from error
        raise_first(self.source.config_problems(derived, self.learner.uses_pool))
        size = self.deriver.bank_size(world_size)
        if size > len(self.image_ids):
            raise InputError(
                f'The context bank needs {size} images (the batch less one), the data '
                f'set has {len(self.image_ids)}: use a smaller '
                'train_dataloader.batch_size.'
            )

    def _initial(self, value) -> list[str]:
        if isinstance(value, str) and value.endswith('/'):
            found = [i for i in self.image_ids if i.startswith(value)]
            if not found:
                raise InputError(
                    f'active_learning.initial: no image_id begins with {value!r}; they '
                    f'look like {self.image_ids[0]!r}. (Without the slash at its end '
                    'it would be a list file.)'
                )
            return found
        if isinstance(value, (str, Path)):
            listed = read_image_ids(value)
            unknown = sorted(set(listed) - set(self.image_ids))
            if unknown or not listed:
                raise InputError(
                    f'{value}: expected ids of the pool sets such as '
                    f'{self.image_ids[0]!r}, found {unknown[:3] or "none"}. Correct '
                    'the list, or set active_learning.initial to a number of images.'
                )
            return sorted(listed)
        count = self._initial_count(value, 'initial')
        return sorted(select_random(self.image_ids, count, self.initial_seed))

    @property
    def initial_seed(self) -> int:
        """Seed of the choice of the first labelled images."""
        return derive_seed(self.seed, 'initial')

    def _initial_count(self, value, name: str) -> int:
        total = len(self.image_ids)
        count = image_count(value, total, name)
        if count > total:
            raise InputError(
                f'active_learning.{name} asks for {count} images, the data set has '
                f'{total}: 0 stages fit.'
            )
        return count

    def _read_first_query(self, config: dict) -> None:
        self.n_initial = self._initial_count(config.pop('size', None), 'initial.size')
        self.first_query = self._build_query(config)
        raise_first(initial_problems(self.method, config, self.first_query.needs))

    def _build_query(self, config: Mapping) -> QueryStrategy:
        query = build_own(QUERIES, config)
        return query.for_task(self.source.task, self.method.features is not None)

    def _check_features(self) -> None:
        raise_first(feature_problems(self.method, self.query.needs))
        if self.method.features is not None:
            model = build_features(self.cfg, self.method.features)
            self._backbone = model.config
            raise_first(missing_weights(model.config))

    def uses_features(self, number: int) -> bool:
        """Whether pretrained features decide what is labelled at, or after, a stage."""
        query = self.query.needs
        first = self.first_query.needs if self.first_query and not number else Needs()
        names = (*query.pool, *query.labelled, *first.pool, *first.labelled)
        return PRETRAINED_FEATURE in names

    def check_weights(self) -> None:
        """Refuse weights that cannot be had, or that could run code."""
        raise_first(weight_problems(self.cfg, self.settings, self.learner.config))
        if self.method.features is not None:
            where = 'method.features.backbone'
            problems = weight_problems(self.cfg, self.settings, self._backbone, where)
            raise_first(problems)
            with loading_on_this_process():
                build_features(self.cfg, self.method.features, load=True)

    def check_annotations(self, labelled: list[str]) -> None:
        """Read the annotations of test images and of those labelled now."""
        raise_first(self.source.annotation_problems(self.test_ids, 'test'))
        self.check_labelled(labelled)

    def check_labelled(self, labelled: list[str]) -> None:
        """Read the annotations of images that are labelled now."""
        said = self.source.answers
        answered = [image_id for image_id in labelled if image_id in said]
        raise_first(self.source.annotation_problems(answered, 'labelled'))
        others = [image_id for image_id in labelled if image_id not in said]
        for problem in self.source.annotation_problems(others, 'labelled'):
            raise InputError(self.annotator.first_images(problem))

    def check_images(self) -> None:
        """Decode every image."""
        raise_first(self.source.image_problems('pool', self.image_ids))
        raise_first(self.source.image_problems('test', self.test_ids))
