"""Choose which images of a folder to label next, by any detector or classifier.

    python tools/al_select.py CONFIG CHECKPOINT --images FOLDER --budget 100
    python tools/al_select.py --features --images FOLDER --budget 100

No labels are needed. CONFIG is one of mmdet or mmpretrain (mmdet::rtmdet/NAME.py or a
file), of a trial or of a stage. See docs/al_select.md.
"""

import argparse
import os
import os.path as osp
import sys
from collections.abc import Sequence

from tjls_mm import compat  # noqa: F401  before anything of OpenMMLab


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    add = parser.add_argument
    add('config', nargs='?', help='config of the model')
    add('checkpoint', nargs='?', help='its weights')
    add('--images', required=True, metavar='FOLDER', help='with folders in it or not')
    add('--budget', required=True, type=int, metavar='N', help='images to choose')
    add('--labelled', metavar='LIST', help='file of images that are labelled already')
    labels = 'their labels: a COCO file; of a classifier lines "path class-number"'
    add('--annotations', metavar='FILE', help=labels)
    add('--query', help='Entropy, "Entropy(over=\'sum\')" or "dict(type=...)"')
    features = 'choose by pretrained features; CONFIG: others than EfficientNet-Lite0'
    add('--features', nargs='?', const='', metavar='CONFIG', help=features)
    add('--work-dir', help='default: work_dirs/select_<config>_<folder>')
    add('--seed', type=int, default=0, help='of what is random')
    add('--skip-unreadable', action='store_true', help='leave out unreadable images')
    trust = 'load weights whose loading could run code'
    add('--trust-checkpoint', action='store_true', help=trust)
    add('--link', action='store_true', help='link to the images, do not copy them')
    override = 'override settings of CONFIG, e.g. test_dataloader.batch_size=8'
    add('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE', help=override)
    args = parser.parse_args(argv)
    if args.config is None and args.features is None:
        parser.error('expected CONFIG and CHECKPOINT, or --features')
    if args.work_dir is None:
        model = osp.splitext(osp.basename(args.config or 'features'))[0]
        folder = osp.basename(osp.abspath(args.images))
        args.work_dir = f'work_dirs/select_{model}_{folder}'
    return args


def main(argv: Sequence[str] | None = None) -> int:
    args = vars(parse_args(argv))
    os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')

    from tjls_mm.active.ranking import RankingJob, rank_images
    from tjls_mm.errors import InputError

    try:
        rank_images(RankingJob(**args))
    except InputError as error:
        print(f'ERROR: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('Stopped. The same command continues where it was.', file=sys.stderr)
        return 130
    return 0


if __name__ == '__main__':
    sys.exit(main())
