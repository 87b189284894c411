"""Rank a folder of images by a model that somebody brings: gather and select alone."""

from __future__ import annotations

import os.path as osp
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

from filelock import FileLock, Timeout
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import DefaultScope

from tjls_mm import __version__
from tjls_mm.active.config_file import load_config
from tjls_mm.active.features import describe_features
from tjls_mm.active.handed_features import handed_features
from tjls_mm.active.handed_model import HandedModel
from tjls_mm.active.ranking_inputs import (
    check_images,
    check_needs,
    choose_query,
    image_facts,
    read_labelled,
    read_problems,
)
from tjls_mm.active.score_cache import Facts, ScoreCache, Scorer, take_images
from tjls_mm.annotation.picked_images import PICKED, write_picked
from tjls_mm.datasets.folder_images import find_images, is_image
from tjls_mm.errors import InputError, TrainingDiverged, raise_first
from tjls_mm.files import read_json, remove_leftovers, write_json
from tjls_mm.image_ids import write_image_ids
from tjls_mm.outputs import Outputs, check_finite
from tjls_mm.outputs.readers import find_reader
from tjls_mm.outputs.vocabulary import PRETRAINED_FEATURE
from tjls_mm.query.selection import check_selection, write_selection
from tjls_mm.query.strategy import Selection
from tjls_mm.randomness import derive_seed
from tjls_mm.registry import DATASETS, IMAGE_SOURCES, QUERIES, build_own
from tjls_mm.report.gallery import draw_gallery
from tjls_mm.report.picks import predicted_marks, reasons_of
from tjls_mm.stage_folder import RankingFolder


@dataclass(frozen=True)
class RankingJob:
    """What is asked for.

    Attributes:
        images: Folder of images.
        budget: How many to choose.
        config, checkpoint: Of a detector or classifier; None: pretrained features only.
        cfg_options: Overrides of the config, ``KEY=VALUE``.
        labelled: List file of images in the folder that are labelled already.
        annotations: Labels of these: a COCO file, of a classifier ``path label`` lines.
        query: See ``parse_settings``; None: the default.
        features: Of ``tjls_mm.PretrainedFeatures``, for strategies that need them: its
            settings or a config file that has them; None: what the config has, or the
            default.
        seed: Of what is random.
        work_dir: Where to write.
        skip_unreadable: Leave out images that cannot be decoded.
        trust_checkpoint: Unpickle weights that torch cannot load safely.
        link: Link to the picks in place of copying them.
    """

    images: str
    budget: int
    config: str | None = None
    checkpoint: str | None = None
    cfg_options: Sequence[str] = ()
    labelled: str | None = None
    annotations: str | None = None
    query: str | None = None
    features: str | None = None
    seed: int = 0
    work_dir: str = 'work_dirs/al_select'
    skip_unreadable: bool = False
    trust_checkpoint: bool = False
    link: bool = False


def rank_images(job: RankingJob) -> Path:
    """Choose which images of a folder to label next.

    Returns:
        The work dir, with all that ``RankingFolder`` names.

    Raises:
        InputError: If something does not fit; before images are scored where it can
            be known before.
    """
    ranking = Ranking(job)
    with ranking.scope(), ranking.locked():
        ranking.check_models()
        ranking.check_images()
        pool, labelled = ranking.gather()
        selection = ranking.select(pool, labelled)
        ranking.write(pool, selection)
        ranking.report()
    return ranking.folder.path


class Ranking:
    """One ranking of a folder, step by step.

    Raises:
        InputError: If something that was asked for does not fit.
    """

    def __init__(self, job: RankingJob) -> None:
        self.job = job
        self.folder = RankingFolder(job.work_dir)
        self._check_place()
        if (job.config is None) != (job.checkpoint is None):
            raise InputError('CONFIG and CHECKPOINT come together: name both.')
        self.handed = None
        if job.config is not None:
            cfg = load_config(job.config, job.cfg_options)
            self.handed = HandedModel(cfg, job.checkpoint, job.trust_checkpoint)
        self.image_ids = find_images(job.images)
        if not self.image_ids:
            raise InputError(f'{job.images} holds no images.')
        self.labelled = []
        if job.labelled is not None:
            self.labelled = read_labelled(job.labelled, job.images, self.image_ids)
        self._check_budget(len(self.image_ids))
        self.source = self._build_source()
        self._read_query()
        self.facts = image_facts(job.images, self.image_ids)

    def _check_place(self) -> None:
        work, images = map(osp.realpath, (self.folder.path, self.job.images))
        if osp.commonpath([work, images]) == images:
            raise InputError(
                f'--work-dir {self.folder.path} lies in the folder of images, which '
                'what is written would become part of: name another place.'
            )
        if osp.commonpath([work, images]) == work:
            raise InputError(
                f'--images {self.job.images} lies in --work-dir {self.folder.path}, '
                'where files are written anew: name another work dir.'
            )
        self._check_images_before(images)
        kept = self.folder.picked_images
        names = sorted(p.name for p in kept.iterdir()) if kept.is_dir() else []
        others = [n for n in names if not (PICKED.match(n) and is_image(n))]
        if others:
            raise InputError(
                f'{kept / others[0]} ({len(others)} such files) was not put there by '
                'an earlier ranking, and the folder is written anew: move it, or use '
                'another --work-dir.'
            )

    def _check_images_before(self, images: str) -> None:
        """Refuse to write over a ranking of another folder; ``images`` is its path."""
        record = self.folder.record
        before = read_json(record).get('folder') if record.exists() else None
        if before is not None and osp.realpath(str(before)) != images:
            raise InputError(
                f'{record} is of the images in {before}, --images is {images}: use '
                'another --work-dir, or remove that file if the folder was moved.'
            )

    def _check_budget(self, n_images: int) -> None:
        budget, n_labelled = self.job.budget, len(self.labelled)
        n_pool = n_images - n_labelled
        if not 1 <= budget <= n_pool:
            raise InputError(
                f'--budget {budget}: expected 1 to {n_pool}, the images of '
                f'{self.job.images} ({n_images}) less those labelled ({n_labelled}).'
            )

    @property
    def _has_counts(self) -> bool:
        """Whether it is known what labelled images show."""
        known = self.job.annotations is not None or not self.labelled
        return self.job.labelled is not None and known

    def _build_source(self):
        job, handed = self.job, self.handed
        if job.annotations is not None:
            if job.labelled is None:
                raise InputError(
                    '--annotations needs --labelled LIST: which of its images are '
                    'labelled, those without any object among them.'
                )
            if not osp.isfile(job.annotations):
                raise InputError(f'--annotations {job.annotations} does not exist.')
        if handed is None:
            kind = 'FolderImages' if find_spec('mmdet') else 'FolderClsImages'
            settings = dict(type=kind, data_root=job.images, classes=('image',))
            return build_own(IMAGE_SOURCES, settings)
        return handed.source(job.images, self._annotated())

    def _annotated(self) -> dict | None:
        job, handed = self.job, self.handed
        if job.annotations is None:
            return None
        path, kind = osp.abspath(job.annotations), 'CocoFiles'
        settings = dict(data_root=job.images, pool_files=[path], test_files=[path])
        if handed.is_classifier:
            return dict(type='ImageLists', classes=handed.classes, **settings)
        found = build_own(IMAGE_SOURCES, dict(type=kind, **settings)).classes
        strangers = [name for name in found if name not in handed.classes]
        if strangers and handed.has_names:
            raise InputError(
                f'{job.annotations}: category {strangers[0]!r} is no class of the '
                f'model ({", ".join(handed.classes[:5])}, …): rename it there.'
            )
        if strangers and len(found) == len(handed.classes):
            handed.classes = found  # which nothing else names
        return dict(type=kind, classes=handed.classes, **settings)

    def _read_query(self) -> None:
        job, handed, counts = self.job, self.handed, self._has_counts
        is_classifier = handed is not None and handed.is_classifier
        kinds = handed is not None, is_classifier, counts
        self.query_config = choose_query(job.query, *kinds)
        task = 'classification' if is_classifier else 'detection'
        query = build_own(QUERIES, self.query_config)
        self.query = query.for_task(task, features=False)
        self.needs = needs = self.query.needs
        check_needs(self.query_config, needs, handed is not None, counts)
        if 'label_count' in needs.labelled and self.labelled:
            problems = self.source.annotation_problems(self.labelled, 'labelled')
            raise_first(problems)

    def scope(self):
        """Context manager in which types of configs are found."""
        if self.handed is not None:
            return self.handed.scope()
        scope = 'mmdet' if find_spec('mmdet') else 'mmpretrain'
        return DefaultScope.overwrite_default_scope(scope)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out of the work dir."""
        path, lock = self.folder.path, FileLock(self.folder.lock, timeout=0)
        try:
            path.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout:
            raise InputError(
                f'Another process is working in {path}. Wait for it, or use another '
                '--work-dir.'
            ) from None
        except OSError as error:
            raise InputError(
                f'{path} cannot be written to ({error.strerror}): use another '
                '--work-dir.'
            ) from None
        try:
            for part in (path, self.folder.to_annotate):
                remove_leftovers(part)
            yield
        finally:
            lock.release()

    @cached_property
    def scorers(self) -> list[Scorer]:
        """Of the learner and of pretrained features, those that are asked."""
        return [*self._of_learner(), *self._of_features()]

    def _split(self, wanted: Callable[[str], bool]) -> dict[str, tuple[str, ...]]:
        """Names of outputs of pool and labelled images."""
        pool, labelled = self.needs.pool, self.needs.gathered
        if not self.labelled:  # the shape of none is that of the pool's
            pool = tuple(dict.fromkeys([*pool, *labelled]))
        names = {'pool': pool, 'labelled': labelled}
        return {k: tuple(n for n in v if wanted(n)) for k, v in names.items()}

    def _of_learner(self) -> Iterator[Scorer]:
        handed, passes = self.handed, self.needs.passes
        names = self._split(lambda name: name != PRETRAINED_FEATURE)
        if handed is not None and any(names.values()):
            yield Scorer(
                ScoreCache(self.folder.outputs, handed.made_of),
                handed.build,
                lambda list_file: handed.build_dataset(self.source, list_file),
                dict(batch_size=handed.batch_size, num_workers=handed.num_workers),
                (passes, derive_seed(self.job.seed, 'gather')) if passes else (),
                names,
            )

    def _of_features(self) -> Iterator[Scorer]:
        names = self._split(lambda name: name == PRETRAINED_FEATURE)
        if not any(names.values()):
            return
        cfg = Config() if self.handed is None else self.handed.cfg
        model = handed_features(self.job.features, cfg, self.job.trust_checkpoint)
        pipeline = [dict(type='tjls_mm.LoadSquare', size=model.size)]
        own = {'test_mode': True, 'pipeline': pipeline}
        made_of = {'tjls_mm': __version__, **describe_features(model)}
        yield Scorer(
            ScoreCache(self.folder.outputs, made_of),
            lambda: model.to(get_device()),
            lambda path: DATASETS.build({**self.source.pool_dataset(path), **own}),
            dict(batch_size=model.batch_size, num_workers=model.num_workers),
            names=names,
        )

    def check_models(self) -> None:
        """Build what has to score something, and ask whether it can."""
        problems = read_problems(self.folder.images, self.facts)
        facts = {i: f for i, f in self.facts.items() if not problems.get(i)}
        for scorer in self.scorers:
            for part, images in self._parts(facts).items():
                for name in scorer.lacks(part, images):
                    reader = find_reader(scorer.model)
                    if name not in reader.provides(scorer.model):
                        raise InputError(
                            f'--query {self.query_config["type"]} needs the output '
                            f'{name!r}, which {type(scorer.model).__name__} does not '
                            f'provide: {reader.remedy(name)}. Or select otherwise.'
                        )

    def check_images(self) -> None:
        """Decode new images; leave out the unreadable where that is asked for."""
        job = self.job
        skip = job.skip_unreadable
        self.skipped = check_images(self.folder.images, job.images, self.facts, skip)
        bad = set(self.skipped)
        if bad:
            print(f'left out, unreadable: {", ".join(self.skipped)}', flush=True)
        self.facts = {i: f for i, f in self.facts.items() if i not in bad}
        self.labelled = [i for i in self.labelled if i not in bad]
        self._check_budget(len(self.facts))

    def _parts(self, facts: Facts) -> dict[str, Facts]:
        labelled = {i: facts[i] for i in self.labelled if i in facts}
        pool = {i: f for i, f in facts.items() if i not in labelled}
        return {'pool': pool, 'labelled': labelled}

    def gather(self) -> tuple[Outputs, Outputs]:
        """Outputs of pool and labelled images, from disk or from the models."""
        found = {'pool': {}, 'labelled': {}}
        parts = self._parts(self.facts)
        try:
            for scorer in self.scorers:
                for part, images in parts.items():
                    if images:
                        outputs = scorer.outputs(part, images)
                        check_finite(
                            Outputs.from_arrays([*images], outputs), f'{part} images'
                        )
                        found[part].update(outputs)
        except TrainingDiverged as error:
            raise InputError(
                f'{self.job.checkpoint} cannot rank these images: '
                f'{str(error).split(": ")[0]}. Use other weights.'
            ) from None
        if not self.labelled:
            whole = Outputs.from_arrays([*parts['pool']], found['pool'])
            none = take_images(whole, [])
            found['labelled'] = {name: none[name] for name in self.needs.gathered}
        if 'label_count' in self.needs.labelled:
            counts = self.source.label_counts(self.labelled)
            found['labelled']['label_count'] = counts
        return tuple(Outputs.from_arrays([*parts[p]], found[p]) for p in parts)

    def select(self, pool: Outputs, labelled: Outputs) -> Selection:
        """Ask the strategy."""
        budget, seed = self.job.budget, derive_seed(self.job.seed, 'query')
        answer = self.query.select(pool, labelled, budget, seed)
        name = self.query_config['type']
        return check_selection(answer, len(pool.image_ids), budget, name)

    def write(self, pool: Outputs, selection: Selection) -> None:
        """Write everything, the list of picks last."""
        folder, job = self.folder, self.job
        selected = [pool.image_ids[row] for row in selection.rows]
        # Without it the rest is of no ranking, whenever a kill comes.
        folder.selected.unlink(missing_ok=True)
        write_selection(folder.ranking, pool, selection.rows, selection.columns)
        try:
            self._draw_gallery(selected, pool, selection)
        # A picture for the eye must not stop a ranking, whatever a file holds.
        except Exception as error:
            print(f'No gallery: {error}', flush=True)
        write_picked(folder, self.source.image_files(selected), job.link)
        record = {
            'tjls_mm': __version__,
            'config': job.config,
            'checkpoint': job.checkpoint,
            'weights': self.handed and self.handed.made_of['weights'],
            'classes': self.handed and list(self.handed.classes),
            'query': self.query_config,
            'folder': osp.abspath(job.images),
            'seed': job.seed,
            'images': len(self.facts),
            'labelled': len(self.labelled),
            'pool': len(pool.image_ids),
            'selected': len(selected),
            'left_out': self.skipped,
        }
        write_json(folder.record, record)
        write_image_ids(folder.selected, selected)

    def report(self) -> None:
        """Say what was chosen and where it is."""
        n_labelled, folder = len(self.labelled), self.folder
        name = self.query_config['type'].split('.')[-1]
        print(
            f'{len(self.facts)} images, {n_labelled} labelled: {name} chose '
            f'{self.job.budget} of {len(self.facts) - n_labelled}.\n'
            f'  {folder.selected}  first choice first\n'
            f'  {folder.picked_images}  these images\n'
            f'  {folder.ranking}  scores of all\n'
            f'  {folder.gallery}  a look at them',
            flush=True,
        )

    def _draw_gallery(
        self, selected: list[str], pool: Outputs, selection: Selection
    ) -> None:
        classes = self.source.classes
        size = getattr(self.source, 'image_size', None)
        reasons = reasons_of(pool.image_ids, selection.rows, selection.columns, classes)
        marks = predicted_marks(pool, classes, size)
        draw_gallery(
            self.folder.gallery, selected, self.source.open_image, marks, reasons
        )
