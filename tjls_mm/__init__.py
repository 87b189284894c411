"""Active learning by joint learning for OpenMMLab: TJLS, JLS and baselines."""

__version__ = '0.1.0'
