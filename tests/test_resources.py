import subprocess
import sys

import pytest

from sciffusion import resources
from sciffusion.errors import InputError


def test_packaged_configs_and_cards_are_found():
    assert (resources.path("configs") / "data" / "digits.yaml").is_file()
    assert resources.path("datasets", "digits/card.yaml").is_file()


def test_the_package_comes_before_the_checkout(tmp_path, monkeypatch):
    package = tmp_path / "site" / "sciffusion"
    for folder in (package / "configs", package.parent / "configs", package.parent / "datasets"):
        folder.mkdir(parents=True)
    monkeypatch.setattr(resources, "PACKAGE", package)
    assert resources.path("configs") == package / "configs"
    assert resources.path("datasets") == package.parent / "datasets"


@pytest.mark.parametrize("name", ["nothing", "../pyproject.toml"])
def test_what_is_not_there_is_named_with_what_is(name):
    with pytest.raises(InputError, match=r"does not exist.*data"):
        resources.path("configs", name)


def test_the_cache_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("SCIFFUSION_CACHE", str(tmp_path))
    assert resources.cache_dir() == tmp_path
    monkeypatch.delenv("SCIFFUSION_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resources.cache_dir() == tmp_path / ".cache" / "sciffusion"


def test_torch_is_not_imported():
    code = "import sys, sciffusion.resources; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
