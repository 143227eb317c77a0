"""Train and evaluate a model: ``python run_recbole_posattn.py --model=PosKernelSASRec --dataset=ml-100k``."""

import sys

try:
    from recbole_posattn.cli import launch
except ImportError as error:  # a missing package, or a version that RecBole does not run on
    print(f"recbole-posattn: {error}", file=sys.stderr)
    sys.exit(2)

if __name__ == "__main__":
    sys.exit(launch())
