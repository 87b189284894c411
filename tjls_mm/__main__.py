"""Run a script of OpenMMLab where mmcv came without compiled ops.

``python -m tjls_mm SCRIPT ARGUMENTS`` is ``python SCRIPT ARGUMENTS`` with the
stand-ins of ``tjls_mm.compat`` in place: mmdet's own tools import ``mmdet.models``
before they read a config, whose ``custom_imports`` come too late for them.
"""

import runpy
import sys

from tjls_mm import compat  # noqa: F401

if __name__ == '__main__':
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    del sys.argv[0]
    runpy.run_path(sys.argv[0], run_name='__main__')
