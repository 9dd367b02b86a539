"""Entries are fetched once; what the server has not is told, what breaks off goes on."""

import gzip
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml

from sciffusion import prepare as entry
from sciffusion import resources
from sciffusion.domains.protein import deposits
from sciffusion.domains.protein.deposits import deposit
from sciffusion.domains.protein.lists import read_names
from sciffusion.domains.protein.store import read_store
from sciffusion.errors import InputError


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder; notes what it is asked for, and breaks off what it is told to."""

    def do_GET(self):
        self.server.asked.append(self.path)
        if self.server.broken.get(self.path, 0):
            self.server.broken[self.path] -= 1
            data = (self.server.folder / self.path[1:]).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2])
            return
        super().do_GET()

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch, pdb):
    """A server of three entries, and a card that names it."""
    folder = tmp_path / "served"
    folder.mkdir()
    for k in range(3):
        text = pdb.text(pdb.chain("A", 20 + k, seed=k), pdb.chain("B", 15, seed=9 + k, far=60))
        (folder / f"{k + 1}abc.cif.gz").write_bytes(gzip.compress(text.encode()))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    server.asked, server.broken, server.folder = [], {}, folder
    address = f"http://127.0.0.1:{server.server_port}/{{id}}.cif.gz"
    cards = tmp_path / "datasets" / "pdb"
    cards.mkdir(parents=True)
    (cards / "card.yaml").write_text(yaml.safe_dump({"address": address}))
    (cards / "chains.csv").write_text("pdb,chain,cluster\n1abc,A,5\n2abc,B,6\n")
    known = resources.path
    monkeypatch.setattr(
        resources,
        "path",
        lambda kind, name="": cards / name[4:] if name.startswith("pdb/") else known(kind, name),
    )
    monkeypatch.setattr(deposits, "PAUSE", 0.01)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_entries_are_fetched_once(server, tmp_path):
    for _ in range(2):
        files, lost = deposit("pdb", ["1abc", "3abc"], tmp_path / "kept")
        assert [f.name for f in files] == ["1abc.cif.gz", "3abc.cif.gz"]
        assert lost == []
        assert len(server.asked) == 2


def test_what_the_server_has_not_is_told(server, tmp_path):
    files, lost = deposit("pdb", ["1abc", "9xyz", "2abc"], tmp_path / "kept")
    assert [f.name for f in files] == ["1abc.cif.gz", "2abc.cif.gz"]
    (line,) = lost
    assert line.startswith("9xyz: ")
    assert "404" in line


def test_what_breaks_off_is_asked_for_again_and_the_rest_is_kept(server, tmp_path):
    server.broken["/2abc.cif.gz"] = 1
    files, _ = deposit("pdb", ["1abc", "2abc"], tmp_path / "kept")
    assert gzip.decompress(files[1].read_bytes())
    server.broken["/3abc.cif.gz"] = 99
    with pytest.raises(InputError, match=r"3abc: .*broke off.* are kept"):
        deposit("pdb", ["1abc", "3abc"], tmp_path / "kept")
    server.broken.clear()
    server.asked.clear()
    files, _ = deposit("pdb", ["1abc", "2abc", "3abc"], tmp_path / "kept")
    assert server.asked == ["/3abc.cif.gz"]
    assert gzip.decompress(files[2].read_bytes())


def test_garbled_files_are_removed(server, tmp_path):
    (server.folder / "1abc.cif.gz").write_bytes(gzip.compress(b"x" * 1000)[:-9])
    with pytest.raises(InputError, match="came garbled"):
        deposit("pdb", ["1abc"], tmp_path / "kept")
    assert not list((tmp_path / "kept").glob("*"))
    (tmp_path / "kept" / "2abc.cif.gz").write_bytes(b"what was there")
    files, _ = deposit("pdb", ["2abc"], tmp_path / "kept")
    assert gzip.decompress(files[0].read_bytes())


def test_no_server_is_told(server, tmp_path, monkeypatch):
    monkeypatch.setattr(deposits, "TRIES", 1)
    with pytest.raises(InputError, match="cannot reach"):
        deposits.fetch_entry("1abc", tmp_path, "http://127.0.0.1:9/{id}.cif.gz")
    with pytest.raises(InputError, match="dataset=cath is not known"):
        deposit("cath", ["1abc"], tmp_path)


def test_the_command_takes_the_chains_of_a_list(server, tmp_path, capsys):
    (tmp_path / "ids.txt").write_text("1abc_A\n2ABC\n9xyz_A\n")
    common = ["domain=protein", "dataset=pdb", f"root={tmp_path}", "min_length=8", "workers=1"]
    entry.main([*common, f"out={tmp_path / 'out'}", f"ids={tmp_path / 'ids.txt'}", "identity=0"])
    assert [r.name for r in read_store(tmp_path / "out")] == ["1abc_A", "2abc_A", "2abc_B"]
    (line,) = (tmp_path / "out" / "left_out.txt").read_text().splitlines()
    assert line.startswith("9xyz: ")
    entry.main([*common, f"out={tmp_path / 'listed'}"])
    found = [(r.name, r.cluster) for r in read_store(tmp_path / "listed")]
    assert found == [("1abc_A", 5), ("2abc_B", 6)]
    (tmp_path / "ids.txt").write_text("myfile_A\n")
    with pytest.raises(InputError, match="no PDB code"):
        entry.main([*common, f"out={tmp_path / 'no'}", f"ids={tmp_path / 'ids.txt'}"])


def test_the_shipped_list_names_entries_and_clusters():
    listed = read_names(resources.path("datasets", "pdb/chains.csv"))
    assert len(listed.clusters) > 2000
    assert len(listed.entries) > 1000
    assert min(listed.clusters.values()) >= 0
    card = yaml.safe_load(resources.path("datasets", "pdb/card.yaml").read_text())
    assert card["address"].format(id="2h0q").startswith("https://")
