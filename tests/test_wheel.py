"""The wheel, unpacked elsewhere, runs without the checkout."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# The editable install must not answer for the wheel.
WHERE = "import sciffusion, pathlib; print(pathlib.Path(sciffusion.__file__).parent)"


@pytest.mark.slow
def test_a_wheel_runs_elsewhere(finish, tiny, tmp_path):
    build = ["build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run([sys.executable, "-m", *build], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    target, away = tmp_path / "site", tmp_path / "away"
    away.mkdir()
    install = ["pip", "install", "--no-deps", "--target", str(target), str(wheel)]
    subprocess.run([sys.executable, "-m", *install], check=True, capture_output=True)
    here = {"env": {"PYTHONPATH": str(target)}, "cwd": away}

    found = subprocess.run(
        [sys.executable, "-c", WHERE], env={"PYTHONPATH": str(target)}, cwd=away,
        check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    assert found == str(target / "sciffusion")
    assert (target / "sciffusion/configs/train.yaml").is_file()
    assert (target / "sciffusion/datasets/digits/card.yaml").is_file()

    small = ["n=20", "bits_images=2", "bits_steps=3", "extractor=rotation"]
    for name, arguments in (("train", tiny), ("sample", ["n=4"]), ("evaluate", small)):
        code, _, err = finish(f"sciffusion.{name}", *arguments, "run=run", **here)
        assert code == 0, err
    for name in ("report.html", "metrics.json", "samples/samples.npz"):
        assert (away / "run" / name).is_file()

    code, _, err = finish("sciffusion.sample", "domain=molecule", "smiles=CCO", "n=2", **here)
    assert code == 0, err  # with the weights in the wheel
    assert (away / "conformers.sdf").is_file()
