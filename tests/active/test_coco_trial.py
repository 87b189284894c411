"""A whole trial on files in COCO's format, its pool without labels in sight."""

import json
import xml.etree.ElementTree as ET

import pytest
from conftest import make_config

from tjls_mm.active.trial import run_stages
from tjls_mm.errors import InputError
from tjls_mm.image_ids import read_image_ids
from tjls_mm.stage_folder import TrialFolder

CATEGORIES = {'ball': 3, 'crate': 7, 'cone': 8, 'star': 40, 'ring': 90}


def coco(data, image_set: str, first: int) -> dict:
    """The demo's image set in COCO's format: numbers with gaps, a crowd, no objects."""
    part = data / 'VOCdemo'
    names = (part / 'ImageSets' / 'Main' / f'{image_set}.txt').read_text().split()
    images, annotations = [], []
    for i, name in enumerate(names, first):
        root = ET.parse(part / 'Annotations' / f'{name}.xml').getroot()
        size = {k: int(root.find(f'size/{k}').text) for k in ('width', 'height')}
        images.append({'id': 5 * i, 'file_name': f'{name}.jpg', **size})
        for obj in root.findall('object') if i % 6 else []:  # some have none
            x1, y1, x2, y2 = (
                int(obj.find(f'bndbox/{side}').text) - 1
                for side in ('xmin', 'ymin', 'xmax', 'ymax')
            )
            annotations.append(
                {
                    'id': len(annotations) + 1,
                    'image_id': 5 * i,
                    'category_id': CATEGORIES[obj.find('name').text],
                    'bbox': [x1, y1, x2 - x1, y2 - y1],
                    'area': (x2 - x1) * (y2 - y1),
                    'iscrowd': int(len(annotations) % 9 == 8),
                }
            )
    categories = [{'id': i, 'name': name} for name, i in CATEGORIES.items()]
    return {'images': images, 'annotations': annotations, 'categories': categories}


@pytest.fixture
def trial(copied_data, tmp_path):
    files = {
        'pool': coco(copied_data, 'trainval', 1),
        'test': coco(copied_data, 'test', 99),
    }
    for name, content in files.items():
        (copied_data / f'{name}.json').write_text(json.dumps(content))

    def make(**options):
        cfg = make_config(copied_data, tmp_path / 'work', **options)
        cfg.data_source = dict(
            type='tjls_mm.CocoFiles',
            data_root=str(copied_data),
            pool_files=['pool.json'],
            test_files=['test.json'],
            image_dirs='VOCdemo/JPEGImages',
            classes=tuple(CATEGORIES),
        )
        ann_file = str(copied_data / 'test.json')
        cfg.val_evaluator = [
            dict(type='CocoMetric', metric='bbox', ann_file=ann_file),
            dict(type='VOCMetric', metric='mAP', eval_mode='area'),
        ]
        return cfg

    return make, files, copied_data


def test_a_trial_on_coco_files(trial, tmp_path):
    make, files, data = trial
    run_stages(make())
    folder = TrialFolder(tmp_path / 'work')
    record = json.loads(folder.stage(1).metrics.read_text())
    assert {'coco/bbox_mAP', 'pascal_voc/mAP'} <= record['metrics'].keys()
    labelled = set(read_image_ids(folder.stage(1).labelled))
    assert len(labelled) == record['n_labelled'] == 14
    numbers = {
        f'VOCdemo/JPEGImages/{image["file_name"]}': image['id']
        for image in files['pool']['images']
    }
    of_labelled = {numbers[i] for i in labelled}
    boxes = [a for a in files['pool']['annotations'] if a['image_id'] in of_labelled]
    assert record['n_boxes'] == len(boxes)

    # The same without a single label of an image that was never selected.
    for annotation in files['pool']['annotations']:
        if annotation['image_id'] not in of_labelled:
            annotation.update(bbox=['poison'], category_id=-1)
    (data / 'pool.json').write_text(json.dumps(files['pool']))
    cfg = make()
    cfg.work_dir = str(tmp_path / 'poisoned')
    run_stages(cfg)
    for number in (0, 1):
        one, two = (
            TrialFolder(tmp_path / name).stage(number) for name in ('work', 'poisoned')
        )
        assert one.selection.read_bytes() == two.selection.read_bytes()
        assert one.model.read_bytes() == two.model.read_bytes()


def test_a_selected_image_with_a_bad_box_is_named(trial, tmp_path):
    make, files, data = trial
    for annotation in files['pool']['annotations']:
        annotation['bbox'] = [0, 0, 9999, 10]
    (data / 'pool.json').write_text(json.dumps(files['pool']))
    with pytest.raises(InputError, match=r'pool.json.*leaves its image.*bad_boxes'):
        run_stages(make())
    cfg = make()
    cfg.data_source.bad_boxes = 'drop'
    run_stages(cfg)
    folder = TrialFolder(tmp_path / 'work')
    assert json.loads(folder.stage(1).metrics.read_text())['n_boxes'] == 0
