"""Train and evaluate a model: ``python run_recbole_posattn.py --model=PosKernelSASRec --dataset=ml-100k``."""

import sys

from recbole_posattn.cli.main import launch

if __name__ == "__main__":
    sys.exit(launch())
