"""The README's results, made from benchmarks/results: python benchmarks/readme.py

The first table of each page in PAGES, under its title, goes between the README's two marks.
"""

from __future__ import annotations

import re
from pathlib import Path

from sciffusion.atomic import atomic_path

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
PAGES = (
    "digits", "sampler_quality", "image_peers_quality", "image_peers_speed_digits",
    "image_peers_speed_cifar", "conformers_geom_drugs", "conformers_openff", "conformers_qm9",
    "conformers_by_calls", "molecule_ablation", "molecule_speed", "protein_backbones",
    "protein_ablation", "protein_speed", "motif", "boltzmann",
    "edm2", "few_step_image", "few_step_molecule", "few_step_molecule_relaxed",
    "few_step_protein", "autoguidance_image", "autoguidance_molecule", "autoguidance_protein",
    "inverse", "likelihood",
)  # fmt: skip
PICTURES = {"conformers_by_calls": "docs/conformers_by_calls.png"}
"""Shown in the place of a table."""
START, END = "<!-- results -->", "<!-- end of results -->"


def extract(page: str, picture: str | None) -> str:
    """Title, first table or its picture, and the bold line of a result page."""
    title = re.search(r"^# (.+)$", page, re.M)
    table = re.search(r"(^\|.*\n)+", page, re.M)
    assert title, "a result page begins with '# title'"
    assert table, "a result page has a table"
    claim = re.search(r"^\*\*[^*]+\*\* .+$", page, re.M)
    shown = f"![{title[1]}]({picture})" if picture else table[0].strip()
    parts = [f"**{title[1]}**", shown]
    return "\n\n".join(parts + ([claim[0]] if claim else []))


def main() -> None:
    found = [HERE / "results" / f"{name}.md" for name in PAGES]
    body = "\n\n".join(
        extract(path.read_text(), PICTURES.get(path.stem)) for path in found if path.exists()
    )
    text = README.read_text()
    before, _, rest = text.partition(START)
    after = rest.partition(END)[2]
    section = (
        f"{START}\n## Results\n\nMade from `benchmarks/results`, which say how.\n\n{body}\n{END}"
    )
    with atomic_path(README) as temporary:
        temporary.write_text(before + section + after)


if __name__ == "__main__":
    main()
