"""Gathering: any order, any number of processes, kills."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import test_classifier_reader as classifier
import test_detector_readers as detectors
import torch
from mmengine.registry import init_default_scope

from tjls_mm.errors import InputError
from tjls_mm.image_ids import write_image_ids
from tjls_mm.outputs import Outputs, gather_outputs
from tjls_mm.outputs.gather import fingerprint, fixed_shape_batches

NAMES = {
    'ssd': [
        'logit',
        'feature',
        'boxes',
        'flip_boxes',
        'box_feature',
        'mutual_information',
    ],
    'classifier': ['logit', 'probability', 'pass_probability', 'predictive_entropy'],
}
SCOPES = {'ssd': 'mmdet', 'classifier': 'mmpretrain'}
LEARNERS = {
    'ssd': lambda: detectors.built('ssd', joint=True),
    'classifier': classifier.build,
}
DATA = {
    'ssd': lambda n: detectors.batch([detectors.SHAPES[1]] * n),
    'classifier': classifier.batch,
}
N = 11


class Images:
    """Images in memory; counts what is read."""

    def __init__(self, task: str, order=range(N), broken=None):
        made = DATA[task](N)
        self.images = [{k: v[i] for k, v in made.items()} for i in range(N)]
        self.order = list(order)
        self.broken = broken
        self.read = []

    def __len__(self):
        return len(self.order)

    def get_data_info(self, index):
        return {'image_id': f'x/{self.order[index]:02d}'}

    def __getitem__(self, index):
        number = self.order[index]
        if number == self.broken:
            raise InputError(f'image {number} cannot be read')
        self.read.append(number)
        return copy.deepcopy(self.images[number])


def gather(task, folder: Path, dataset=None, names=None, model=None, **options):
    dataset = dataset or Images(task)
    init_default_scope(SCOPES[task])
    model = model or LEARNERS[task]()
    list_file = folder.parent / 'list.txt'
    if not list_file.exists():
        write_image_ids(list_file, [f'x/{i:02d}' for i in range(N)])
    settings = dict(passes=2, batch_size=3, list_file=list_file, **options)
    return gather_outputs(
        model, dataset, folder / 'out', names or NAMES[task], **settings
    )


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / 'out').iterdir()}


@pytest.mark.parametrize('n_images', [1, 7, 8, 9, 30])
@pytest.mark.parametrize('world_size', [1, 2, 3])
def test_batches_have_one_shape_and_hold_every_row_once(n_images, world_size):
    blocks = [
        fixed_shape_batches(n_images, 4, r, world_size) for r in range(world_size)
    ]
    batches = [batch for block in blocks for batch in block]
    assert all(len(batch) == 4 for batch in batches)
    assert len(batches) == -(-n_images // 4)
    rows = [row for batch in batches for row in batch]
    assert rows[:n_images] == list(range(n_images))
    assert set(rows[n_images:]) <= {n_images - 1}


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """Folders of what one process gathers."""
    root = tmp_path_factory.mktemp('whole')
    for task in NAMES:
        (root / task).mkdir()
        gather(task, root / task)
    return root


def test_outputs_have_the_shapes_of_the_vocabulary(whole):
    outputs = Outputs.open(whole / 'ssd' / 'out', whole / 'list.txt')
    assert list(outputs) == NAMES['ssd']
    assert outputs.image_ids == [f'x/{i:02d}' for i in range(N)]
    for name, width in (('logit', ()), ('feature', (288,))):
        assert outputs[name].shape == (N, *width)
        assert outputs[name].dtype == np.float32
    for boxes in outputs['boxes'], outputs['flip_boxes']:
        m = boxes.offsets[-1]
        assert len(boxes) == N and m > N
        assert boxes.xyxy.shape == (m, 4) and boxes.probability.shape == (m, 5)
        assert boxes.label.dtype == boxes.prior.dtype == np.int32
        own = boxes.probability[np.arange(m), boxes.label]
        assert np.array_equal(own, boxes.score)
    features = outputs['box_feature']
    assert features.shape == (len(outputs['boxes'].score), 32)
    assert features.dtype == np.float16
    assert outputs['boxes'].feature is features
    outputs = Outputs.open(whole / 'classifier' / 'out')
    assert outputs['pass_probability'].shape == (N, 2, 5)
    np.testing.assert_allclose(outputs['probability'].sum(1), 1, rtol=1e-5)


@pytest.mark.parametrize('task', NAMES)
@torch.no_grad()
def test_boxes_and_rows_belong_to_their_image(whole, task):
    """Against the model's own answer, image by image in batches of the same shape."""
    init_default_scope(SCOPES[task])
    outputs = Outputs.open(whole / task / 'out')
    model, images = LEARNERS[task](), Images(task)
    for i in range(0, N, 3):
        item = images[i]
        answers = model.test_step({k: [v] * 3 for k, v in item.items()})
        if task == 'ssd':
            expected = answers[0].pred_instances
            assert np.array_equal(outputs['boxes'][i].xyxy, expected.bboxes.numpy())
            assert np.array_equal(outputs['boxes'][i].label, expected.labels.numpy())
        else:
            expected = answers[0].pred_score.numpy()
            assert np.array_equal(outputs['probability'][i], expected)


@pytest.mark.parametrize('task', NAMES)
def test_order_of_the_images_does_not_matter(whole, tmp_path, task):
    order = np.random.default_rng(0).permutation(N).tolist()
    gather(task, tmp_path, Images(task, order), num_workers=1)
    assert files(tmp_path) == files(whole / task)


def test_mode_is_given_back_and_gathered_in_eval_mode(whole, tmp_path):
    init_default_scope('mmpretrain')
    model = classifier.build().train()
    model.backbone.eval()
    modes = [module.training for module in model.modules()]
    with torch.autocast('cpu', torch.bfloat16):
        outputs = gather('classifier', tmp_path, model=model)
    assert [module.training for module in model.modules()] == modes
    assert outputs['logit'].dtype == np.float32
    assert files(tmp_path) == files(whole / 'classifier')


def test_what_is_there_is_not_computed_again(whole, tmp_path):
    init_default_scope('mmpretrain')
    model = classifier.build()
    gather('classifier', tmp_path, model=model)
    dataset = Images('classifier')
    gather('classifier', tmp_path, dataset, model=model)
    assert dataset.read == []
    model.head.fc.bias.data += 1
    again = gather('classifier', tmp_path, dataset, model=model)
    assert dataset.read, 'of other weights'
    first = Outputs.open(whole / 'classifier' / 'out')
    assert not np.array_equal(again['probability'], first['probability'])


def test_weights_have_a_fingerprint():
    init_default_scope('mmpretrain')
    one, two = classifier.build(), classifier.build()
    assert fingerprint(one) == fingerprint(two)
    two.backbone.bn1.running_mean[0] += 1e-6
    assert fingerprint(one) != fingerprint(two)


def test_what_cannot_be_gathered_is_refused(tmp_path):
    init_default_scope('mmpretrain')
    with pytest.raises(InputError, match="does not provide 'boxes'.*of detectors"):
        gather('classifier', tmp_path, names=['boxes'])
    with pytest.raises(InputError, match='no pool reader knows Linear.*POOL_READERS'):
        gather('classifier', tmp_path, names=['logit'], model=torch.nn.Linear(1, 1))
    with pytest.raises(InputError, match='2 images, 1 different'):
        gather('classifier', tmp_path, Images('classifier', [3, 3]))
    assert not (tmp_path / 'out').exists()


def process(rank: int, task: str, folder: str, broken: int | None) -> None:
    """One of two processes; writes which images it read."""
    torch.set_num_threads(1)
    store = f'file://{folder}/{broken}.store'
    torch.distributed.init_process_group(
        'gloo', init_method=store, rank=rank, world_size=2
    )
    dataset = Images(task, broken=broken)
    error = ''
    try:
        gather(task, Path(folder), dataset)
    except InputError as caught:
        error = str(caught)
    said = {'read': dataset.read, 'error': error}
    Path(folder, f'{broken}_{rank}.json').write_text(json.dumps(said))
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize('task', NAMES)
def test_two_processes_gather_what_one_does_and_keep_finished_shards(
    whole, tmp_path, task
):
    write_image_ids(tmp_path.parent / 'list.txt', [f'x/{i:02d}' for i in range(N)])

    def run(broken):
        context = torch.multiprocessing.get_context('fork')
        args = (task, str(tmp_path), broken)
        workers = [context.Process(target=process, args=(r, *args)) for r in (0, 1)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(120)
        said = [tmp_path / f'{broken}_{rank}.json' for rank in (0, 1)]
        return [json.loads(path.read_text()) for path in said]

    failed = run(broken=8)
    assert [said['error'] for said in failed] == ['image 8 cannot be read'] * 2
    with pytest.raises(InputError, match='lack index.json'):
        Outputs.open(tmp_path / 'out')
    done = run(broken=None)
    assert [said['error'] for said in done] == ['', '']
    assert done[0]['read'] == [], 'its shard was there'
    assert set(done[1]['read']) == set(range(6, N))
    assert files(tmp_path) == files(whole / task)
