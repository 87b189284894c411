"""Start several processes' communication before the first Runner does."""

import datetime
import os

import torch
from mmengine.config import Config
from mmengine.dist import init_dist, is_distributed

# Others wait while process 0 decodes every image once or fetches weights.
PATIENCE_S = 4 * 3600


def init_launcher(launcher: str, cfg: Config) -> None:
    """Initialise torch.distributed for 'none', 'pytorch', 'slurm' or 'mpi'."""
    if launcher == 'none' or is_distributed():
        return
    if not torch.cuda.is_available() and launcher == 'pytorch':
        # MMEngine's launcher picks a GPU first and fails where there is none.
        timeout = datetime.timedelta(seconds=PATIENCE_S)
        torch.distributed.init_process_group('gloo', timeout=timeout)
        return
    if launcher == 'mpi':
        # MMEngine sets it for the other launchers only.
        local_rank = os.environ.get('OMPI_COMM_WORLD_LOCAL_RANK', '0')
        os.environ['LOCAL_RANK'] = local_rank
    dist_cfg = dict((cfg.get('env_cfg') or {}).get('dist_cfg') or {'backend': 'nccl'})
    dist_cfg.setdefault('timeout', PATIENCE_S)
    init_dist(launcher, **dist_cfg)
    os.environ.setdefault('RANK', str(torch.distributed.get_rank()))


def close_launcher() -> None:
    """End the communication: threads of it that live on abort Python's exit."""
    if is_distributed():
        torch.distributed.destroy_process_group()
