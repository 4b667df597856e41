# SPDX-License-Identifier: Apache-2.0
"""From names to models in the store, against servers that speak the real protocols."""

from __future__ import annotations

import hashlib
import json
import random
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import store_files

from freehold.catalogue import catalogue
from freehold.errors import (
    CapacityError,
    DownloadError,
    FreeholdError,
    IntegrityError,
    InvalidParameterError,
    ModelNotFoundError,
    PolicyError,
    UnsupportedModelError,
)
from freehold.hub.ranged_download import TransferLimits
from freehold.hub.store import Store
from freehold.hub.web import WebLimits
from freehold.planner.machine import TYPICAL, Machine
from freehold.pulling import PullOptions, plan_pull, pull
from model_server import COMMIT, DATE, Fault, ModelServer, Repo, changed, cut_after, status

WEB = WebLimits(read_timeout=2, retries=3, first_pause=0.001, longest_pause=0.01)
PIECES = TransferLimits(connections=3, smallest_piece=32 << 10, write_size=8 << 10)
HEADER = {"general.architecture": "llama", "tokenizer.chat_template": "{{ messages }}"}


def gguf(seed: int, size: int = 100_000) -> bytes:
    return store_files.gguf(HEADER, random.Random(seed).randbytes(size))


def split(number: int, count: int, size: int = 100_000) -> bytes:
    header = HEADER if number == 1 else {}
    keys = {"split.no": number - 1, "split.count": count, "split.tensors.count": 0}
    return store_files.gguf(header | keys, random.Random(number).randbytes(size))


def safetensors(size: int) -> bytes:
    header = json.dumps({"x": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(size)


CARD = {"license": "apache-2.0", "base_model": ["org/base"]}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ModelServer]:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("FREEHOLD_MODELS", str(tmp_path / "store"))
    monkeypatch.setattr("freehold.hub.sources.huggingface.saved_token", lambda: None)
    with ModelServer() as running:
        yield running


@pytest.fixture
def store(server: ModelServer) -> Store:
    return Store()


def options(server: ModelServer, **changes: object) -> PullOptions:
    values = {"endpoint": server.url, "web": WEB, "transfer": PIECES} | changes
    return PullOptions(**values)  # type: ignore[arg-type]


# -- Hugging Face ---------------------------------------------------------------------------------


def test_a_gguf_repository(server: ModelServer, store: Store) -> None:
    files = {"m-Q4_K_M.gguf": gguf(1), "m-Q8_0.gguf": gguf(2), "README.md": b"# m", "x.py": b"1",
             "LICENSE": b"Apache License", "config.json": b"{}"}  # fmt: skip
    server.repos["org/repo"] = Repo(files, CARD)
    seen: list[tuple[int, int, str]] = []
    stored = pull("hf:org/repo", options(server), progress=lambda *told: seen.append(told))
    assert stored.name == "hf:org/repo:Q4_K_M"
    assert stored.aliases == ("hf:org/repo",)
    assert (stored.revision, stored.quant) == (COMMIT, "Q4_K_M")
    assert (stored.licence_claim, stored.base_models) == ("apache-2.0", ("org/base",))
    names = {file.name for file in stored.files}
    assert names == {"m-Q4_K_M.gguf", "LICENSE", "README.md"}
    assert stored.path().read_bytes() == files["m-Q4_K_M.gguf"]
    assert stored.template_sha256 == hashlib.sha256(b"{{ messages }}").hexdigest()
    assert store.find("hf:org/repo") == stored
    done = [told[0] for told in seen]
    assert done == sorted(done)
    assert done[-1] == seen[-1][1] == sum(len(files[name]) for name in names)
    # Large files came from the other host, and everything by commit, not by branch.
    assert all(COMMIT in r.path for r in server.requests("/resolve/"))
    assert {r.port for r in server.requests("/cdn/")} == {int(server.cdn.rpartition(":")[2])}

    other = pull("hf:org/repo:q8_0@main", options(server))
    assert other.path().read_bytes() == files["m-Q8_0.gguf"]
    assert {m.name for m in store.models()} == {"hf:org/repo:Q4_K_M", other.name}


def test_pulling_again_fetches_nothing_but_the_answer(server: ModelServer, store: Store) -> None:
    server.repos["org/repo"] = Repo({"m-Q4_0.gguf": gguf(1), "LICENSE": b"L"}, CARD)
    first = pull("hf:org/repo:Q4_0", options(server))
    server.seen.clear()
    again = pull("hf:org/repo:Q4_0", options(server))
    assert again.files == first.files
    assert not server.requests("/cdn/")
    server.repos["org/repo"].files["m-Q4_0.gguf"] = gguf(9)
    server.repos["org/repo"].commit = "f" * 40
    newer = pull("hf:org/repo:Q4_0", options(server))
    assert newer.path().read_bytes() == gguf(9)
    assert [m.revision for m in store.models()] == ["f" * 40]


def test_splits_come_together(server: ModelServer) -> None:
    parts = {f"Q6_K/m-Q6_K-{i:05d}-of-00003.gguf": split(i, 3, 30_000) for i in (1, 2, 3)}
    server.repos["org/big"] = Repo({**parts, "m-Q2_K.gguf": gguf(7)})
    stored = pull("hf:org/big", options(server, quant="Q6_K"))
    assert stored.entry == "Q6_K/m-Q6_K-00001-of-00003.gguf"
    folder = stored.path().parent
    for name, data in parts.items():
        assert (folder / Path(name).name).read_bytes() == data
    del server.repos["org/big"].files["Q6_K/m-Q6_K-00002-of-00003.gguf"]
    with pytest.raises(DownloadError, match="split"):
        pull("hf:org/big", options(server, quant="Q6_K"))


def test_a_safetensors_repository(server: ModelServer) -> None:
    files = {"config.json": b"{}", "model.safetensors": safetensors(90_000), "vocab.json": b"{}",
             "pytorch_model.bin": bytes(10), "modeling_x.py": b"", "chat_template.jinja": b"x",
             "original/params.json": b"{}"}  # fmt: skip
    server.repos["org/st"] = Repo(files, {"license": "other", "license_name": "house"})
    stored = pull("hf:org/st", options(server))
    assert stored.name == "hf:org/st"
    assert stored.entry == ""
    assert stored.licence_claim == "house"
    assert {p.name for p in stored.path().iterdir()} == {
        "config.json", "model.safetensors", "vocab.json", "chat_template.jinja"
    }  # fmt: skip
    assert not server.requests(r"\.bin|\.py")


def test_one_file_and_a_revision(server: ModelServer) -> None:
    server.repos["org/repo"] = Repo({"a.gguf": gguf(1), "b.gguf": gguf(2)})
    stored = pull(f"hf:org/repo/b.gguf@{COMMIT}", options(server))
    assert stored.path().read_bytes() == gguf(2)
    with pytest.raises(ModelNotFoundError, match="several models"):
        pull("hf:org/repo", options(server))
    with pytest.raises(ModelNotFoundError, match="no revision v9"):
        pull("hf:org/repo/b.gguf@v9", options(server))
    other = changed(lambda body: body.replace(COMMIT.encode(), b"e" * 40))
    server.faults.append(Fault("/api/", other))
    with pytest.raises(DownloadError, match="offered eeee"):
        pull(f"hf:org/repo/b.gguf@{COMMIT}", options(server))


def test_absent_and_gated_repositories_are_explained(server: ModelServer, store: Store) -> None:
    with pytest.raises(ModelNotFoundError, match="does not exist, or is not public"):
        pull("hf:org/none", options(server))
    server.repos["org/gated"] = Repo(
        {"m-Q4_0.gguf": gguf(1)}, gated="manual", needs_token="hf_good"
    )
    with pytest.raises(DownloadError, match="is gated") as caught:
        plan_pull("hf:org/gated", options(server))
    assert f"{server.url}/org/gated" in caught.value.message
    assert "hf auth login" in (caught.value.hint or "")
    with pytest.raises(DownloadError, match="is gated"):
        pull("hf:org/gated", options(server, token="hf_bad"))
    assert not store.models()
    assert pull("hf:org/gated", options(server, token="hf_good")).quant == "Q4_0"
    for seen in server.seen:
        if seen.port != int(server.url.rpartition(":")[2]):
            assert "authorization" not in seen.headers


def test_the_login_is_for_huggingface_alone(
    server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("freehold.hub.sources.huggingface.saved_token", lambda: "hf_login")
    server.repos["org/repo"] = Repo({"m-Q4_0.gguf": gguf(1)})
    notes: list[str] = []
    pull("hf:org/repo", options(server), note=notes.append)
    assert not [s for s in server.seen if "hf_login" in str(s.headers)]
    assert "not told your Hugging Face token" in notes[0]


LIES = {
    "traversal": {"rfilename": "../../evil.gguf"},
    "absolute": {"rfilename": "/etc/evil.gguf"},
    "backslash": {"rfilename": "a\\..\\evil.gguf"},
    "digest": {"lfs": {"size": 5, "sha256": "../../../x", "pointerSize": 1}},
    "negative": {"lfs": {"size": -5, "sha256": "a" * 64, "pointerSize": 1}},
    "huge": {"lfs": {"size": 1 << 62, "sha256": "a" * 64, "pointerSize": 1}},
    "no size": {"lfs": None, "size": None},
    "text size": {"lfs": None, "size": "12"},
    "lfs is a list": {"lfs": [1]},
    "name is a number": {"rfilename": 5},
    "git digest": {"lfs": None, "blobId": "../x"},
}


@pytest.mark.parametrize("lie", LIES)
def test_what_a_hostile_endpoint_says(server: ModelServer, store: Store, lie: str) -> None:
    server.repos["org/repo"] = Repo({"m-Q4_0.gguf": gguf(1)}, lies={"m-Q4_0.gguf": LIES[lie]})
    with pytest.raises(FreeholdError):
        pull("hf:org/repo", options(server))
    assert not store.models()


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{", b"<html>", b'{"id":"x"}', b'{"id":1,"sha":"x","siblings":[]}',
     b'{"id":"x","sha":"' + b"a" * 40 + b'","siblings":[{}]}',
     b'{"id":"x","sha":"' + b"a" * 40 + b'","siblings":{"a":1}}',
     b'{"id":"x","sha":"' + b"a" * 40 + b'","cardData":{"license":[[1]]},"siblings":[]}',
     b"[" * 100_000, b'{"id":"x","id":"y"}'],
    ids=range(11),
)  # fmt: skip
def test_answers_that_are_none(server: ModelServer, body: bytes) -> None:
    server.repos["org/repo"] = Repo({})
    server.faults.append(Fault("/api/", changed(lambda _: body)))
    with pytest.raises(FreeholdError):
        pull("hf:org/repo", options(server))


def test_a_wrong_file_is_never_listed(server: ModelServer, store: Store) -> None:
    server.repos["org/repo"] = Repo({"m-Q4_0.gguf": gguf(1), "LICENSE": b"text"})
    server.faults.append(Fault("/cdn/", changed(lambda body: body[::-1])))
    with pytest.raises(IntegrityError, match="not what was promised"):
        pull("hf:org/repo", options(server))
    server.faults = [Fault("LICENSE", changed(lambda body: b"other"[: len(body)]), skip=1)]
    with pytest.raises(IntegrityError):
        pull("hf:org/repo", options(server))
    assert not store.models()


def test_the_disk_is_looked_at_first(
    server: ModelServer, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.repos["org/repo"] = Repo({"m-Q4_0.gguf": gguf(1)})
    plan = plan_pull("hf:org/repo", options(server))
    assert plan.need.missing == plan.need.total == len(gguf(1))

    class Usage:
        free = 64 << 20

    monkeypatch.setattr("freehold.hub.fetching.shutil.disk_usage", lambda path: Usage)
    with pytest.raises(CapacityError, match="needs 100,"):
        pull("hf:org/repo", options(server))
    assert not server.requests("/resolve/")


def test_the_official_client_understands_the_server_of_these_tests(
    server: ModelServer, tmp_path: Path
) -> None:
    import huggingface_hub

    server.repos["org/repo"] = Repo({"m-Q4_0.gguf": gguf(1), "LICENSE": b"terms"}, CARD)
    api = huggingface_hub.HfApi(endpoint=server.url, token=False)
    info = api.model_info("org/repo", files_metadata=True)
    assert info.sha == COMMIT
    for name, data in server.repos["org/repo"].files.items():
        got = huggingface_hub.hf_hub_download(
            "org/repo", name, endpoint=server.url, cache_dir=tmp_path / "hf", token=False
        )
        assert Path(got).read_bytes() == data
    with pytest.raises(huggingface_hub.errors.RepositoryNotFoundError):
        api.model_info("org/none")
    server.repos["org/repo"].needs_token = "x"
    with pytest.raises(huggingface_hub.errors.GatedRepoError):
        huggingface_hub.get_hf_file_metadata(
            f"{server.url}/org/repo/resolve/main/m-Q4_0.gguf", token=False
        )
    huggingface_hub.close_session()


def test_two_at_once_fetch_once(server: ModelServer, store: Store) -> None:
    server.repos["org/repo"] = Repo({"m-Q4_0.gguf": gguf(1, 400_000)})
    server.pause = 0.005
    with ThreadPoolExecutor(3) as pool:
        models = list(pool.map(lambda _: pull("hf:org/repo", options(server)), range(3)))
    assert {m.path().read_bytes() for m in models} == {gguf(1, 400_000)}
    asked = [r.headers["range"] for r in server.requests("/cdn/")]
    assert len(asked) == len(set(asked))
    assert len(store.models()) == 1


# -- Ollama ---------------------------------------------------------------------------------------


def test_an_ollama_model(server: ModelServer, store: Store) -> None:
    layers = {"model": gguf(1), "template": b"{{ .Prompt }}", "params": b'{"stop":["x"]}',
              "license": b"\nMIT License\n\nCopyright", "license-2": b"policy"}  # fmt: skip
    server.add_ollama("library/tiny:1b", layers)
    stored = pull("ollama:tiny:1b", options(server))
    assert stored.name == "ollama:tiny:1b"
    assert (stored.source, stored.quant, stored.licence_claim) == (
        "ollama",
        "Q4_K_M",
        "MIT License",
    )
    assert stored.path().read_bytes() == layers["model"]
    assert {f.name for f in stored.files} == {
        "model.gguf", "ollama.template", "ollama.params.json", "LICENSE", "LICENSE-2"
    }  # fmt: skip
    manifest = server.requests("/manifests/1b")[0]
    assert manifest.headers["accept"] == "application/vnd.docker.distribution.manifest.v2+json"
    assert stored.revision == "sha256:" + hashlib.sha256(server.tags["library/tiny:1b"]).hexdigest()


def test_a_registry_with_tokens(server: ModelServer) -> None:
    server.registry_token = "anonymous-token"
    server.add_ollama("library/tiny:latest", {"model": gguf(1)})
    assert pull("ollama:tiny", options(server)).name == "ollama:tiny:latest"
    asked = server.requests("^/token")
    assert "scope=repository%3Alibrary%2Fx%3Apull" in asked[0].path
    for seen in server.requests("/cdn/"):
        assert "authorization" not in seen.headers


@pytest.mark.parametrize("token", [None, "my-own"])
def test_realms_on_other_hosts_are_refused(server: ModelServer, token: str | None) -> None:
    with ModelServer() as thief:
        server.registry_token = "good"
        server.realm = f"{thief.url}/token"
        server.add_ollama("library/tiny:latest", {"model": gguf(1)})
        with pytest.raises(DownloadError):
            pull("ollama:tiny", options(server, token=token))
        assert not thief.seen


@pytest.mark.parametrize(
    "digest",
    ["sha256:../../../../tmp/evil", "sha256:" + "a" * 63, "sha256:" + "A" * 64, "../x", "", None, 5,
     "sha512:" + "a" * 64, "sha256:" + "a" * 64 + "/..", "sha256-" + "a" * 64],
    ids=range(10),
)  # fmt: skip
def test_hostile_digests_in_manifests(server: ModelServer, store: Store, digest: object) -> None:
    kind = "application/vnd.ollama.image.model"
    layer = {"mediaType": kind, "digest": digest, "size": 5}
    server.add_ollama("library/x:latest", {"model": gguf(1)}, layers=[layer])
    with pytest.raises(DownloadError, match="digest"):
        pull("ollama:x", options(server))
    assert not server.requests("/blobs/.*evil")


@pytest.mark.parametrize("size", [-1, None, "9", 1 << 62, 1.5])
def test_hostile_sizes_in_manifests(server: ModelServer, size: object) -> None:
    kind = "application/vnd.ollama.image.model"
    layer = {"mediaType": kind, "digest": "sha256:" + "a" * 64, "size": size}
    server.add_ollama("library/x:latest", {"model": gguf(1)}, layers=[layer])
    with pytest.raises(DownloadError):
        pull("ollama:x", options(server))


def test_what_cannot_run_is_said_before_it_comes(server: ModelServer) -> None:
    server.add_ollama("library/cloud:latest", {"license": b"x"})
    with pytest.raises(UnsupportedModelError, match="not one GGUF file"):
        pull("ollama:cloud", options(server))
    with pytest.raises(ModelNotFoundError, match="no such model"):
        pull("ollama:none", options(server))


def test_a_blob_that_is_another(server: ModelServer, store: Store) -> None:
    manifest = server.add_ollama("library/x:latest", {"model": gguf(1)})
    digest = manifest["layers"][0]["digest"]
    server.blobs[digest] = gguf(2)
    with pytest.raises(IntegrityError):
        pull("ollama:x", options(server))
    assert not store.models()
    server.blobs[digest] = gguf(1)
    assert pull("ollama:x", options(server)).path().read_bytes() == gguf(1)


# -- URLs and paths -------------------------------------------------------------------------------


def test_a_url(server: ModelServer, store: Store) -> None:
    server.files["/a/m-Q4_0.gguf"] = (gguf(1), '"v1"')
    stored = pull(f"{server.url}/a/m-Q4_0.gguf", options(server))
    assert stored.name == f"{server.url}/a/m-Q4_0.gguf"
    assert (stored.source, stored.quant, stored.revision) == ("url", "Q4_0", '"v1"')
    assert stored.path().read_bytes() == gguf(1)
    digest = hashlib.sha256(gguf(2)).hexdigest()
    with pytest.raises(IntegrityError):
        pull(f"{server.url}/a/m-Q4_0.gguf#sha256={digest}", options(server, revision=None))
    assert store.find(stored.name) == stored


@pytest.mark.parametrize("etag", ['W/"v1"', None])
def test_servers_that_tell_versions_apart_badly(server: ModelServer, etag: str | None) -> None:
    server.files["/m.gguf"] = (gguf(1), etag)
    server.faults.append(Fault("m.gguf", cut_after(10_000), times=2, skip=1))
    stored = pull(f"{server.url}/m.gguf", options(server))
    assert stored.revision == (DATE if etag else None)
    assert stored.path().read_bytes() == gguf(1)


def test_a_lone_file_is_listed_under_what_its_header_claims(
    server: ModelServer, store: Store, tmp_path: Path
) -> None:
    said = HEADER | {"general.license": "apache-2.0", "general.file_type": 7}
    data = store_files.gguf(said, bytes(100_000))
    server.files["/m.gguf"] = (data, '"1"')
    (tmp_path / "here.gguf").write_bytes(data)
    for name in (f"{server.url}/m.gguf", str(tmp_path / "here.gguf")):
        stored = pull(name, options(server))
        assert (stored.licence_claim, stored.quant) == ("apache-2.0", "Q8_0")
    # What a repository says of itself goes before the headers of its files.
    server.repos["org/repo"] = Repo({"m-Q8_0.gguf": data}, {"license": "mit"})
    assert pull("hf:org/repo", options(server)).licence_claim == "mit"


def test_splits_at_urls(server: ModelServer) -> None:
    for i in (1, 2):
        server.files[f"/m-0000{i}-of-00002.gguf"] = (split(i, 2), f'"{i}"')
    stored = pull(f"{server.url}/m-00002-of-00002.gguf", options(server))
    assert stored.entry == "m-00001-of-00002.gguf"
    assert [file.size for file in stored.files] == [len(split(1, 2)), len(split(2, 2))]


def test_urls_that_are_no_model(server: ModelServer, store: Store) -> None:
    server.files["/page.gguf"] = (b"<html>not found</html>", None)
    with pytest.raises(DownloadError, match="no model that can be read"):
        pull(f"{server.url}/page.gguf", options(server))
    with pytest.raises(ModelNotFoundError, match="404"):
        pull(f"{server.url}/none.gguf", options(server))
    server.files["/empty.gguf"] = (b"", None)
    with pytest.raises(DownloadError):
        pull(f"{server.url}/empty.gguf", options(server))
    server.faults.append(Fault("chunked", status(200, {"X": "y"})))
    assert not store.models()
    with pytest.raises(InvalidParameterError):
        pull(f"{server.url}/m.gguf", options(server, quant="Q4_0"))


def test_a_token_for_a_url_stays_there(server: ModelServer) -> None:
    server.files["/m.gguf"] = (gguf(1), None)
    pull(f"{server.url}/m.gguf", options(server, token="abc"))
    assert {s.headers.get("authorization") for s in server.seen} == {"Bearer abc"}


def test_paths(
    server: ModelServer, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    for i in (1, 2):
        (folder / f"m-0000{i}-of-00002.gguf").write_bytes(split(i, 2))
    (folder / "evil.py").write_text("")
    stored = pull(str(folder / "m-00001-of-00002.gguf"), options(server))
    assert stored.source == "path"
    monkeypatch.chdir(folder)
    again = pull("./m-00001-of-00002.gguf", options(server))
    assert again.name == stored.name == str(folder / "m-00001-of-00002.gguf")
    assert again.aliases == ()
    assert [f.sha256 for f in stored.files] == [
        hashlib.sha256(split(i, 2)).hexdigest() for i in (1, 2)
    ]
    assert not server.seen
    with pytest.raises(ModelNotFoundError, match="no such file"):
        pull(str(folder / "none.gguf"), options(server))
    (folder / "pipe.gguf").symlink_to("/dev/zero")
    with pytest.raises(FreeholdError):
        pull(str(folder / "pipe.gguf"), options(server))


# -- the catalogue --------------------------------------------------------------------------------


def test_a_shorthand(server: ModelServer, store: Store) -> None:
    member = next(m for m in catalogue.members() if m.gguf_repos)
    files = {"m-Q4_K_M.gguf": gguf(1), "m-Q8_0.gguf": gguf(2)}
    server.repos[member.gguf_repos[0]] = Repo(files, CARD)
    stored = pull(member.name, options(server, quant="Q8_0"))
    assert stored.name == f"hf:{member.gguf_repos[0]}:Q8_0"
    assert member.name in stored.aliases
    assert store.find(member.name) == stored
    with pytest.raises(ModelNotFoundError, match="has no Q6_K"):
        pull(member.name, options(server, quant="Q6_K"))
    with pytest.raises(ModelNotFoundError, match="catalogue has no"):
        pull("nosuchmodel:1b", options(server))


def test_a_shorthand_without_gguf_comes_from_the_vendor(server: ModelServer) -> None:
    member = next(iter(catalogue.members()))
    server.repos[member.repo] = Repo({"config.json": b"{}", "model.safetensors": safetensors(10)})
    assert pull(member.name, options(server)).name == f"hf:{member.repo}"


# -- the choice of a quant ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("free", "speed", "chosen", "word"),
    [
        (64 << 30, 30, "Q8_0", "Q8_0 chosen"),
        (64 << 30, 1, "Q4_K_M", "Q4_K_M chosen"),  # it fits, and would be slow
        (8 << 30, 30, "Q4_K_M", "Q4_K_M chosen"),
        (1 << 28, 30, "Q4_K_M", "no quant of it fits"),
    ],
)
def test_the_plan_chooses(
    server: ModelServer,
    monkeypatch: pytest.MonkeyPatch,
    free: int,
    speed: int,
    chosen: str,
    word: str,
) -> None:
    rates = replace(TYPICAL, read=TYPICAL.read * speed, int8=TYPICAL.int8 * speed)
    machine = Machine("test", 2 * free, free, 4, rates)
    monkeypatch.setattr("freehold.planning.this_machine", lambda **_: machine)
    monkeypatch.setattr("freehold.planning.known_rates", lambda *_: None)
    member = catalogue.find("llama3.1:8b")
    assert member is not None
    files = {f"m-{q}.gguf": gguf(1) for q in ("Q8_0", "Q4_K_M", "F16")}
    server.repos[member.gguf_repos[0]] = Repo(files)
    notes: list[str] = []
    plan = plan_pull(member.name, options(server), note=notes.append)
    assert plan.model.quant == chosen
    assert len(notes) == 1
    assert word in notes[0]


def test_sizes_choose_where_the_catalogue_knows_nothing(
    server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def free(nbytes: int) -> None:
        machine = Machine("test", 2 * nbytes, nbytes, 4, TYPICAL)
        monkeypatch.setattr("freehold.planner.machine.this_machine", lambda **_: machine)

    big = 30 << 30
    lies = {"m-Q4_K_M.gguf": {"lfs": {"size": big, "sha256": "a" * 64, "pointerSize": 1}}}
    files = {"m-Q4_K_M.gguf": gguf(1), "m-Q3_K_M.gguf": gguf(2), "m-Q8_0.gguf": gguf(3)}
    server.repos["org/unknown"] = Repo(files, lies=lies)
    free(64 << 30)
    assert plan_pull("hf:org/unknown", options(server)).model.quant == "Q4_K_M"
    free(16 << 30)
    assert plan_pull("hf:org/unknown", options(server)).model.quant != "Q4_K_M"


# -- the policy -----------------------------------------------------------------------------------

APACHE = {"license": "apache-2.0"}


def house_policy(tmp_path: Path, text: str = 'allow = ["osi"]\n') -> None:
    path = tmp_path / "config" / "freehold" / "policy.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_the_policy_is_asked_before_anything_comes(
    server: ModelServer, store: Store, tmp_path: Path
) -> None:
    house_policy(tmp_path)
    server.repos["org/open"] = Repo({"m-Q4_0.gguf": gguf(1)}, APACHE)
    server.repos["org/closed"] = Repo({"m-Q4_0.gguf": gguf(2)}, {"license": "llama3.2"})
    server.repos["org/silent"] = Repo({"m-Q4_0.gguf": gguf(3)})
    assert pull("hf:org/open", options(server)).licence_claim == "apache-2.0"
    server.seen.clear()
    for name in ("hf:org/closed", "hf:org/silent"):
        with pytest.raises(PolicyError) as caught:
            pull(name, options(server))
        assert caught.value.reason["action"] == "pull"
        assert str(caught.value.reason["model"]).startswith(name)
        with pytest.raises(PolicyError):
            plan_pull(name, options(server))
    assert not server.requests("/cdn/|resolve")
    assert [m.repository for m in store.models()] == ["org/open"]
    pull("hf:org/closed", options(server, override="bought a licence"))
    assert store.find("hf:org/closed") is not None


@pytest.mark.parametrize(
    "name", ["llama3.2:1b", "LLAMA3.2:1b", "hf:meta-llama/Llama-3.2-1B-Instruct:Q4_K_M",
             "hf:bartowski/Llama-3.2-1B-Instruct-GGUF@v1", "ollama:llama3.2:1b"],
)  # fmt: skip
def test_what_the_catalogue_knows_is_refused_without_a_network(
    server: ModelServer, store: Store, tmp_path: Path, name: str
) -> None:
    house_policy(tmp_path)
    with pytest.raises(PolicyError) as caught:
        pull(name, options(server))
    assert caught.value.reason["code"] == "licence-not-allowed"
    assert caught.value.reason["licences"] == ["llama3.2"]
    assert not server.seen


def test_an_exception_from_the_policy_is_written_down_once(
    server: ModelServer, store: Store, tmp_path: Path
) -> None:
    house_policy(tmp_path)
    member = catalogue.get("llama3.2:1b")
    server.repos[member.gguf_repos[0]] = Repo({"m-Q4_0.gguf": gguf(1)}, {"license": "llama3.2"})
    pull(member.name, options(server, override="bought a licence"))
    written = (tmp_path / "data" / "freehold" / "policy-overrides.jsonl").read_text()
    assert len(written.splitlines()) == 1


def test_a_registry_of_ones_own_is_not_judged_by_the_names_of_another(
    server: ModelServer, store: Store, tmp_path: Path
) -> None:
    house_policy(tmp_path)
    name = f"ollama:{server.url.removeprefix('http://')}/library/llama3.2:1b"
    server.add_ollama("library/llama3.2:1b", {"model": gguf(1), "license": b"MIT License"})
    with pytest.raises(PolicyError) as caught:
        plan_pull(name, options(server))
    assert caught.value.reason["licences"] != ["llama3.2"]
    assert server.requests("/manifests/")


def test_another_licence_in_a_new_revision_counts(
    server: ModelServer, store: Store, tmp_path: Path
) -> None:
    house_policy(tmp_path)
    server.repos["org/repo"] = Repo({"m-Q4_0.gguf": gguf(1)}, APACHE)
    pull("hf:org/repo", options(server))
    newer = Repo({"m-Q4_0.gguf": gguf(1)}, {"license": "llama3.2"}, commit="e" * 40)
    server.repos["org/repo"] = newer
    with pytest.raises(PolicyError):
        pull("hf:org/repo", options(server))


def test_texts_that_ollama_carries_are_judged(server: ModelServer, tmp_path: Path) -> None:
    house_policy(tmp_path)
    community = b"LLAMA 3.2 COMMUNITY LICENSE AGREEMENT\n"
    server.add_ollama("me/mine:latest", {"model": gguf(1), "license": community})
    with pytest.raises(PolicyError):
        pull("ollama:me/mine", options(server))


def test_the_header_of_a_file_at_a_url_is_judged(server: ModelServer, tmp_path: Path) -> None:
    house_policy(tmp_path)
    server.files["/m.gguf"] = (gguf(1), None)
    with pytest.raises(PolicyError, match=r"m\.gguf"):
        pull(f"{server.url}/m.gguf", options(server))
    said = HEADER | {"general.license": "apache-2.0"}
    server.files["/open.gguf"] = (store_files.gguf(said, bytes(2_000_000)), '"1"')
    pull(f"{server.url}/open.gguf", options(server))
    server.ranges = False
    with pytest.raises(PolicyError):
        pull(f"{server.url}/open.gguf", options(server))
