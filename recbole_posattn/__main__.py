"""``python -m recbole_posattn`` is ``recbole-posattn``."""

import sys

from recbole_posattn.cli.main import main

sys.exit(main())
