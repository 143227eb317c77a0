"""A plugin of recbole-posattn: a model, a kernel, an encoding and a loss of your own.

Copy this folder, rename the package, and keep what you need. Importing the package registers the names, and that is all
that makes it a plugin. Two ways to use it, from the folder that holds the package:

1. Name it. The current folder counts, so nothing needs to be installed::

       recbole-posattn run --plugin=my_model --model=ShortcutSASRec --dataset=ml-100k
       recbole-posattn inspect --plugin=my_model saved/ShortcutSASRec-ml-100k-…/best.pth
       recbole-posattn leaderboard --plugin=my_model leaderboard.yaml
       recbole-posattn tune --plugin=my_model --model=ShortcutSASRec --space=space.yaml

   In a settings file or a leaderboard: ``plugins: [my_model]``; in Python: ``config_dict={"plugins": ["my_model"]}``.

2. Install it: ``pip install .`` The entry point in ``pyproject.toml`` then names it, and ``--plugin`` is not needed.
"""

from pathlib import Path

from my_model.encoding import LogDistanceBias
from my_model.kernel import PowerLawKernel
from my_model.loss import FocalCrossEntropy
from my_model.model import ShortcutSASRec
from recbole_posattn import register, register_encoding, register_kernel, register_loss

register_kernel("power_law", PowerLawKernel)  # kernel_structure: power_law-full, toeplitz-power_law, …
register_encoding("log_distance", LogDistanceBias)  # position_encoding: [log_distance]
register_loss("focal", FocalCrossEntropy)  # loss_type: focal
register(ShortcutSASRec, properties=Path(__file__).with_name("ShortcutSASRec.yaml"))  # model: ShortcutSASRec
