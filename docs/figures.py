"""Draw the pictures of docs/encodings.md: ``python docs/figures.py`` writes docs/images/kernel_<structure>.png."""

from __future__ import annotations

from pathlib import Path

from recbole_posattn.analysis.interference_figure import draw_structures

IMAGES = Path(__file__).parent / "images"

if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    for name, figure in draw_structures().items():
        file = IMAGES / f"kernel_{name}.png"
        figure.savefig(file, dpi=100)
        print(file)
