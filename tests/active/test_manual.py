"""People label: export, answers, and what may be wrong with them."""

import csv
import importlib
import json
import shutil
from pathlib import Path

import pytest
from conftest import CLASSES, draw_class_folders, make_classifier_config, make_config
from mmengine.config import Config
from mmengine.registry import DefaultScope
from test_kills import Killer
from test_trial import Killed, weights

from tjls_mm.active import stage as stage_module
from tjls_mm.active.plan import TrialPlan
from tjls_mm.active.trial import run_stages
from tjls_mm.annotation import Box, ImageRecord, Manual, read_answers, write_answers
from tjls_mm.annotation.manual import SENT
from tjls_mm.datasets import CocoFiles, ImageFolders, ImageLists, VOCFiles
from tjls_mm.errors import InputError
from tjls_mm.image_ids import read_image_ids, write_image_ids
from tjls_mm.registry import DATASETS
from tjls_mm.stage_folder import StageFolder, TrialFolder

SHORT = {'train_cfg.max_epochs': 1, 'param_scheduler.0.total_steps': 1}
LABEL_STUDIO = dict(type='LabelStudio')
COCO = dict(type='CocoJson', no_boxes='nothing')


def trial(data, work_dir, name='demo_random', format=LABEL_STUDIO, **options):
    annotator = dict(type='tjls_mm.Manual', format=format)
    above = options.pop('suggest_above', None)
    if above is not None:
        annotator['suggest_above'] = above
    chosen = {'active_learning.annotator': annotator, **SHORT, **options}
    return make_config(data, work_dir, name, **chosen), TrialFolder(work_dir)


def voc_source(data: Path) -> VOCFiles:
    cfg = make_config(data, data, 'demo_random').data_source
    return VOCFiles(**{k: v for k, v in cfg.items() if k != 'type'})


def records(folder: StageFolder) -> list[ImageRecord]:
    """What people were asked."""
    return read_answers(folder.to_annotate / SENT).images


def deliver_coco(folder: StageFolder, source, image_ids=None) -> None:
    """The true boxes of asked images, as a COCO export."""
    boxes = {
        i: tuple(Box(b.name, b.bbox) for b in source.instances(i))
        for i in image_ids or [image.image_id for image in records(folder)]
    }
    path = folder.drop / 'export.json'
    write_answers(path, records(folder), boxes, source.classes)


def task(image: ImageRecord, boxes=(), skipped=False) -> dict:
    """A task as Label Studio exports it."""
    results = [
        {
            'id': f'r{row}',
            'type': 'rectanglelabels',
            'original_width': image.width,
            'original_height': image.height,
            'value': {
                'x': 100 * x1 / image.width,
                'y': 100 * y1 / image.height,
                'width': 100 * (x2 - x1) / image.width,
                'height': 100 * (y2 - y1) / image.height,
                'rotation': 0,
                'rectanglelabels': [name],
            },
        }
        for row, (name, (x1, y1, x2, y2)) in enumerate(boxes)
    ]
    url = f'/data/local-files/?d=images/{image.file_name}'
    return {
        'data': {'image': url, 'image_id': image.image_id},
        'annotations': [{'was_cancelled': skipped, 'result': results}],
    }


def write_tasks(folder: StageFolder, tasks: list[dict]) -> None:
    (folder.drop / 'export.json').write_text(json.dumps(tasks))


def test_people_who_say_what_is_true_equal_the_oracle(
    demo_data, copied_data, tmp_path, monkeypatch, capsys
):
    """Out, a kill, back, a kill: same picks and weights; no label of a pool image."""
    reference = tmp_path / 'oracle'
    run_stages(make_config(demo_data, reference, 'demo_tjls', **SHORT))
    truth = voc_source(demo_data)
    known = set(read_image_ids(reference / 'initial.txt'))
    for image_id in set(truth.list_images('pool')) - known:
        place = Path(truth.annotation_place(image_id)).relative_to(demo_data)
        (copied_data / place).unlink()

    both = [COCO, dict(type='LabelStudio')]
    options = dict(name='demo_tjls', format=both, suggest_above=0.02)
    cfg, folder = trial(copied_data, tmp_path / 'manual', **options)
    first = folder.stage(0)
    exporting = importlib.import_module('tjls_mm.annotation.export_images')
    write = exporting._write

    def killed(path, image):
        if path.name.startswith('000003'):
            raise Killed
        write(path, image)

    with monkeypatch.context() as patch:
        patch.setattr(exporting, '_write', killed)
        with pytest.raises(Killed):
            run_stages(cfg)
    assert not (first.to_annotate / SENT).exists()
    run_stages(cfg)
    said = capsys.readouterr().out
    assert 'stage 1/2 waits for the labels of 6 images' in said
    assert str(first.to_annotate / 'README.md') in said and str(first.drop) in said
    assert json.loads(folder.state.read_text())['stages'][0]['status'] == 'waiting'
    selected = read_image_ids(first.selected)
    assert selected == read_image_ids(reference / 'stage_00' / 'selected.txt')
    sent = read_answers(first.to_annotate / SENT)
    assert [image.image_id for image in sent.images] == selected
    assert all(box.score >= 0.02 for boxes in sent.answers.values() for box in boxes)
    assert any(sent.answers.values())
    names = {path.name for path in first.to_annotate.iterdir()}
    assert {'images', 'coco.json', 'label_studio_tasks.json', 'README.md'} <= names
    assert len(list((first.to_annotate / 'images').iterdir())) == 6

    run_stages(cfg)  # nobody has answered yet
    assert 'no answers yet' in capsys.readouterr().out
    deliver_coco(first, truth)

    def dies(path, ids):
        if path == first.answered:
            raise Killed
        write_image_ids(path, ids)

    with monkeypatch.context() as patch:
        patch.setattr(stage_module, 'write_image_ids', dies)
        with pytest.raises(Killed):
            run_stages(cfg)
    assert first.annotations.exists() and not first.answered.exists()
    run_stages(cfg)
    assert '6 answered' in capsys.readouterr().out

    for name in ('labelled.txt', 'pool.txt', 'selected.txt', 'answered.txt'):
        for path in reference.glob(f'stage_*/{name}'):
            assert (
                path.read_text() == (folder.path / path.parent.name / name).read_text()
            )
    for stage in range(2):
        a, b = weights(reference, stage), weights(folder.path, stage)
        assert all((a[key] == b[key]).all() for key in a)
    metrics = [
        json.loads((path / 'stage_00' / 'metrics.json').read_text())
        for path in (reference, folder.path)
    ]
    assert metrics[0]['picks']['boxes'] == metrics[1]['picks']['boxes']

    # mmdet's own tools build the data set from the config of the stage.
    stage = Config.fromfile(folder.stage(1).config).train_dataloader.dataset.labelled
    assert stage.answer_files == [str(first.annotations.absolute())]
    entries = DATASETS.build(stage).load_data_list()
    boxes = {entry['image_id']: len(entry['instances']) for entry in entries}
    assert boxes == {i: len(truth.usable_instances(i)) for i in {*known, *selected}}


def test_problems_partial_answers_and_nothing_there(demo_data, tmp_path, capsys):
    cfg, folder = trial(demo_data, tmp_path / 'work')
    run_stages(cfg)
    first = folder.stage(0)
    assert 'There are no suggestions' in (first.to_annotate / 'README.md').read_text()
    images, name = records(first), cfg.data_source.classes[0]
    box = (1.0, 2.5, 20.0, 30.0)
    tasks = [task(image, [(name, box)]) for image in images[:3]]
    tasks += [task(images[3]), task(images[4], skipped=True)]
    typo = f'{name}x'

    stranger = ImageRecord('else/000001', 'else.jpg', 10, 10)
    write_tasks(first, [task(stranger)])
    with pytest.raises(InputError, match='says nothing about any of the images'):
        run_stages(cfg)

    tasks.append(task(images[5], [(typo, box)]))
    del tasks[0]['annotations'][0]['result'][0]['value']
    write_tasks(first, tasks)
    with pytest.raises(InputError, match=r'problems\.csv lists all 2.*accept-partial'):
        run_stages(cfg)
    with open(first.problems, newline='') as file:
        rows = list(csv.DictReader(file))
    assert [row['image_id'] for row in rows] == [images[0].image_id, images[5].image_id]
    assert f'Did you mean {name!r}' in rows[1]['what_to_do']
    assert not first.annotations.exists() and not first.answered.exists()

    tasks[0], tasks[5] = (task(images[i], [(name, box)]) for i in (0, 5))
    write_tasks(first, tasks)
    capsys.readouterr()
    run_stages(cfg)
    said = capsys.readouterr().out
    assert '5 answered (1 with nothing there), 1 skipped' in said
    assert 'give 1 back to the pool with --accept-partial' in said
    assert not first.problems.exists() and not first.answered.exists()

    run_stages(cfg, accept_partial=True)
    answered = [image.image_id for image in images if image != images[4]]
    assert read_image_ids(first.answered) == answered
    second = folder.stage(1)
    assert images[4].image_id in read_image_ids(second.pool)
    record = json.loads(second.metrics.read_text())
    own = voc_source(demo_data).count_labels(read_image_ids(folder.initial))['boxes']
    assert record['n_labelled'] == 13
    assert record['n_boxes'] == sum(own.values()) + 4
    found = read_answers(first.annotations).answers
    assert found[images[3].image_id] == ()
    assert found[images[0].image_id][0].bbox == pytest.approx(box)

    # The work of people is kept where a stage is given up.
    run_stages(cfg, redo_from=0)
    kept = folder.kept / 'stage_00_0'
    assert (kept / 'answers' / 'export.json').exists()
    assert read_image_ids(first.selected) == [image.image_id for image in images]
    shutil.copy(kept / 'answers' / 'export.json', first.drop)
    run_stages(cfg, accept_partial=True)
    assert read_image_ids(first.answered) == answered


def test_a_class_table_of_an_unlabelled_pool(class_folders, tmp_path, capsys):
    data = tmp_path / 'data'
    draw_class_folders(data, 4, 2)
    (data / 'pool').mkdir()
    truth = {}
    for path in sorted((class_folders / 'train').glob('*/00*.png')):
        number = len(truth)
        shutil.copy(path, data / 'pool' / f'{number:03d}.png')
        truth[f'pool/{number:03d}.png'] = path.parent.name
    cfg = make_classifier_config(
        data,
        tmp_path / 'work',
        'random',
        **{
            **SHORT,
            'active_learning.initial': 'train/',
            'active_learning.annotator': dict(
                type='tjls_mm.Manual', format=dict(type='ClassTable'), suggest_above=0
            ),
            'method.query': dict(type='tjls_mm.Entropy', _delete_=True),
            'data_source.unlabelled_dirs': ['pool'],
        },
    )
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        run_stages(cfg)
        first = TrialFolder(tmp_path / 'work').stage(0)
        with open(first.to_annotate / 'labels.csv', newline='') as file:
            rows = list(csv.DictReader(file))
        assert all(row['suggestion'] in CLASSES for row in rows)
        named = {image.file_name: image.image_id for image in records(first)}
        lines = [f'{row["image"]};{truth[named[row["image"]]]}' for row in rows]
        table = first.drop / 'mine.csv'
        table.write_text('\n'.join(['image;class', *lines[:-1], lines[-1] + 's']))
        with pytest.raises(InputError, match='class .* is unknown. Did you mean'):
            run_stages(cfg)
        table.write_text('\n'.join(['image;class', *lines]))
        run_stages(cfg)
    second = first.path.parent / 'stage_01'
    listed = (second / 'labelled_annotations.txt').read_text().split('\n')[:-1]
    found = dict(line.split() for line in listed)
    assert len(found) == 24
    answered = read_image_ids(first.answered)
    assert {i: CLASSES[int(found[i])] for i in answered} == {
        i: truth[i] for i in answered
    }


@pytest.mark.parametrize(
    'annotator, message',
    [
        (dict(format=dict(type='ClassTable')), 'ClassTable is of classification'),
        (dict(format=dict(type='LabelStudios')), "'LabelStudios' is unknown. Known:"),
        (dict(format='LabelStudio'), r'expected dict\(type=NAME\)'),
        (dict(format=LABEL_STUDIO, suggest_above=3), r'score in \[0, 1\]'),
        (dict(format=dict(type='Yolo', no_boxes='no')), "'unanswered', got 'no'"),
        (dict(), "missing.*'format'"),
    ],
)
def test_settings_that_cannot_be(demo_data, tmp_path, annotator, message):
    cfg, _ = trial(demo_data, tmp_path / 'work')
    cfg.active_learning.annotator = dict(type='tjls_mm.Manual', **annotator)
    with pytest.raises(InputError, match=message):
        TrialPlan(cfg)


def test_first_images_need_labels_of_their_own(copied_data, tmp_path):
    cfg, folder = trial(copied_data, tmp_path / 'work')
    (initial,) = [TrialPlan(cfg).initial]
    source = voc_source(copied_data)
    Path(source.annotation_place(initial[0])).unlink()
    with pytest.raises(InputError, match='does not exist.*not about the first'):
        run_stages(cfg)
    assert not folder.state.exists()
    listed = tmp_path / 'mine.txt'
    write_image_ids(listed, initial[1:])
    cfg.active_learning.initial = str(listed)
    plan = TrialPlan(cfg)
    plan.check_annotations(plan.initial)


@pytest.fixture
def asked(demo_data, tmp_path):
    """A stage folder and images to ask for, without a trial."""
    source, folder = voc_source(demo_data), StageFolder(tmp_path / 'stage_00')
    return source, source.list_images('pool')[:3], folder


def suggest(manual: Manual, source) -> None:
    def predictions(image_ids, above):
        assert above == manual.suggest_above
        return {
            i: tuple(Box(b.name, b.bbox, 0.9) for b in source.instances(i))
            for i in image_ids
        }

    manual.predictions = predictions


def test_suggestions_that_nobody_touched(asked, capsys):
    source, ids, folder = asked
    manual = Manual(COCO)
    suggest(manual, source)
    assert manual.annotate(source, ids, folder) is None
    shutil.copy(folder.to_annotate / 'coco.json', folder.drop)
    with pytest.raises(InputError, match='all 3 images came back as they were sent'):
        manual.annotate(source, ids, folder)
    plain = Manual(COCO, suggest_above=None)
    other = StageFolder(folder.path.parent / 'stage_01')
    assert plain.annotate(source, ids, other) is None
    shutil.copy(other.to_annotate / 'coco.json', other.drop)
    with pytest.raises(InputError, match='all 3 images came back as they were sent'):
        plain.annotate(source, ids, other)
    trusting = Manual(COCO, accept_untouched=True)
    assert trusting.annotate(source, ids, folder) == ids
    deliver = read_answers(folder.to_annotate / SENT)
    deliver.answers[ids[0]] = ()
    write_answers(
        folder.drop / 'coco.json', deliver.images, deliver.answers, source.classes
    )
    capsys.readouterr()
    assert manual.annotate(source, ids, folder) == ids
    assert '2 images came back as they were suggested' in capsys.readouterr().out


def test_a_kill_before_every_change_of_a_file(asked, tmp_path):
    source, ids, _ = asked

    def whole(folder: StageFolder) -> dict[str, bytes]:
        manual = Manual([COCO, dict(type='Yolo', no_boxes='nothing')])
        manual.accept_untouched = True
        suggest(manual, source)
        folder.path.mkdir(exist_ok=True)
        if manual.annotate(source, ids, folder) is None:
            deliver_coco(folder, source)
            assert manual.annotate(source, ids, folder) == ids
        paths = sorted(path for path in folder.path.rglob('[!.]*') if path.is_file())
        return {str(p.relative_to(folder.path)): p.read_bytes() for p in paths}

    with pytest.MonkeyPatch.context() as patch:
        killer = Killer(patch, tmp_path / 'stage_01')
        expected = whole(StageFolder(tmp_path / 'stage_01'))
    root = str(tmp_path).encode()
    assert killer.count > 15 and len(expected) > 10
    for at in range(1, killer.count + 1):
        folder = StageFolder(tmp_path / f'killed_{at}')
        with pytest.MonkeyPatch.context() as patch:
            Killer(patch, folder.path, at)
            with pytest.raises(Killed):
                whole(folder)
        found = whole(folder)
        assert found.keys() == expected.keys(), at
        for name, content in found.items():
            content = content.replace(f'killed_{at}'.encode(), b'stage_01')
            assert content == expected[name] or root in content, (at, name)


def test_several_deliveries_and_formats_that_come_later(asked, capsys):
    source, ids, folder = asked
    manual = Manual(COCO, suggest_above=None)
    assert manual.annotate(source, ids, folder) is None
    before = (folder.to_annotate / 'coco.json').stat().st_mtime_ns
    manual = Manual([COCO, dict(type='PascalVoc', no_boxes='nothing')])
    assert manual.annotate(source, ids, folder) is None
    assert (folder.to_annotate / 'coco.json').stat().st_mtime_ns == before
    assert 'PascalVoc' in (folder.to_annotate / 'README.md').read_text()

    images = records(folder)
    half = folder.path / 'half'
    boxes = {i: (Box(source.classes[0], (1, 2, 30, 40)),) for i in ids}
    write_answers(half / 'a.json', images[:2], boxes, source.classes)
    shutil.make_archive(str(folder.drop / 'one'), 'zip', half)
    manual.formats[1].write(folder.drop, images[1:], boxes, source.classes)
    assert manual.annotate(source, ids, folder) == ids
    boxes[ids[1]] = (Box(source.classes[1], (1, 2, 30, 40)),)
    manual.formats[1].write(folder.drop, images[1:], boxes, source.classes)
    with pytest.raises(InputError, match='2 deliveries answer differently'):
        manual.annotate(source, ids, folder)
    manual.accept_partial = True
    assert manual.annotate(source, ids, folder) == [ids[0], ids[2]]
    assert '1 problems, listed in' in capsys.readouterr().out
    shutil.rmtree(folder.drop)
    assert manual.annotate(source, ids, folder) is None
    (folder.drop / 'coco.json').write_text('{}')
    with pytest.raises(InputError, match='is no COCO file'):
        manual.annotate(source, ids, folder)


def test_sources_open_answers_first(demo_data, class_folders, tmp_path):
    """Files of COCO without annotations, and lists without labels."""
    voc = voc_source(demo_data)
    images = [
        {'id': row, 'file_name': voc.image_path(i).removeprefix(f'{demo_data}/')}
        for row, i in enumerate(voc.list_images('pool')[:3], 1)
    ]
    root = shutil.copytree(demo_data, tmp_path / 'coco')
    categories = [{'id': i, 'name': n} for i, n in enumerate(voc.classes, 1)]
    content = {'images': images, 'categories': categories}
    (root / 'pool.json').write_text(json.dumps(content))
    source = CocoFiles(str(root), ['pool.json'], ['pool.json'])
    ids = source.list_images('pool')
    with pytest.raises(InputError, match="no 'annotations'"):
        source.label_counts(ids)
    asked = [ImageRecord(i, f'{row}.jpg', 99, 99) for row, i in enumerate(ids)]
    answers = {
        i: (Box(voc.classes[1], (0.25, 1, 9, 9.5)),) * row for row, i in enumerate(ids)
    }
    write_answers(tmp_path / 'said.json', asked, answers, voc.classes)
    source.use_answers([tmp_path / 'said.json'])
    assert source.label_counts(ids)[:, 1].tolist() == [0, 1, 2]
    assert source.usable_instances(ids[1])[0].bbox == (0.25, 1, 9, 9.5)
    assert not list(source.annotation_problems(ids, 'labelled'))

    lists = shutil.copytree(class_folders, tmp_path / 'lists')
    (lists / 'pool.txt').write_text('bars/0000.png -1\nbars/0001.png 0\n')
    (lists / 'test.txt').write_text('checks/0000.png 1\n')
    source = ImageLists(str(lists), ['pool.txt'], ['test.txt'], CLASSES, 'train')
    ids = source.list_images('pool')
    with pytest.raises(InputError, match='has no class: its label is -1'):
        source.count_labels(ids)
    asked = [ImageRecord(ids[0], '0.png', 16, 16)]
    write_answers(tmp_path / 'class.json', asked, {ids[0]: 'discs'}, CLASSES)
    source.use_answers([tmp_path / 'class.json'])
    assert [source.known_label(i) for i in ids] == [CLASSES.index('discs'), 0]

    folders = ImageFolders(str(lists), ['train'], ['test'], unlabelled_dirs=['test'])
    assert 'test/bars/0000.png' in folders.list_images('pool')
    with pytest.raises(InputError, match="has no class: it is in 'test'"):
        folders.label('test/bars/0000.png')
