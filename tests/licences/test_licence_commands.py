# SPDX-License-Identifier: Apache-2.0
"""`licence`, `policy` and `notice` as a user types them, and a policy before `run` and `serve`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

import tiny_chat
from freehold import LLM
from freehold.cli.main import run
from freehold.errors import PolicyError
from freehold.licences.reasoning import WARNING
from freehold.server.failures import failure_of
from freehold.server.models.registry import ModelRegistry
from freehold.server.settings import ServerSettings

OSI = 'allow = ["osi"]'


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    """The same random weights under three licences."""
    folder = tmp_path_factory.mktemp("models")
    url = "https://huggingface.co/meta-llama/Llama-3.2-1B-Instruct"
    return {
        "llama": tiny_chat.write(folder / "a.gguf", texts={"general.license": "llama3.2"}),
        "apache": tiny_chat.write(folder / "b.gguf", texts={"general.license": "apache-2.0"}),
        "trap": tiny_chat.write(
            folder / "c.gguf",
            texts={"general.license": "apache-2.0", "general.base_model.0.repo_url": url},
            numbers={"general.base_model.count": 1},
        ),
        "silent": tiny_chat.write(folder / "d.gguf"),
    }


def answer(capsys, *words: object) -> tuple[int, str, str]:
    code = run([str(word) for word in words])
    out = capsys.readouterr()
    return code, out.out, out.err


def reason_in(err: str) -> dict:
    """The machine-readable line of a refusal."""
    (line,) = [line for line in err.splitlines() if line.startswith("reason: ")]
    return json.loads(line.removeprefix("reason: "))


# -- licence --------------------------------------------------------------------------------------


def test_the_licence_of_a_file(capsys, models) -> None:
    code, out, _ = answer(capsys, "licence", models["llama"], "--distribute", "--mau", "10")
    assert code == 0
    assert "Built with Llama" in out
    assert "no blocking clause found in the text of" in out
    assert WARNING in out
    assert "https://www.llama.com/llama3_2/license/" in out
    assert "allowed" not in out


def test_the_licence_as_json(capsys, models) -> None:
    code, out, _ = answer(
        capsys, "licence", models["trap"], "--commercial", "--mau", 10**9, "--json", "--check"
    )
    value = json.loads(out)
    assert code == 1
    assert value["status"] == "blocked"
    assert value["model"]["licences"] == ["apache-2.0", "llama3.2"]
    assert value["model"]["claims"] == ["apache-2.0"]
    (blocker,) = value["blockers"]
    assert blocker["licence"] == "llama3.2"
    assert blocker["where"] == "2"
    assert value["warning"] == WARNING
    assert value["answers"]["user_limit"]["confidence"] == "text"


def test_check_fails_where_something_is_open(capsys, models) -> None:
    assert answer(capsys, "licence", models["apache"], "--check")[0] == 0
    assert answer(capsys, "licence", models["silent"], "--check")[0] == 1
    assert answer(capsys, "licence", models["llama"], "--check")[0] == 1  # how many users?


def test_lists_and_tables(capsys, models) -> None:
    code, out, _ = answer(capsys, "licence", "--list")
    assert code == 0
    assert "mistral-modified-mit" in out
    assert len(json.loads(answer(capsys, "licence", "--list", "--json")[1])) > 30
    out = answer(capsys, "licence", models["llama"], "--answers")[1]
    assert "May answers be used to train other models?" in out


@pytest.mark.parametrize(
    "words",
    [
        ("licence",),
        ("licence", "seedling", "--region", "Atlantis"),
        ("licence", "seedling", "--purpose", "fun"),
        ("licence", "seedling", "--mau", "-1"),
        ("licence", "/nowhere/model.gguf"),
        ("licence", "lama3.2:3b"),
        ("licence", "ollama:nobody/nothing"),
        ("licence", ""),
        ("policy", "check"),
        ("notice", "/nowhere/model.gguf"),
    ],
)
def test_mistakes_are_sentences(capsys, words) -> None:
    code, out, err = answer(capsys, *words)
    assert code == 2
    assert err.startswith("error: ")
    assert out == ""


# -- policy ---------------------------------------------------------------------------------------


def test_run_is_stopped_and_says_why_for_machines(policy, models, home, capsys) -> None:
    policy(OSI)
    command = [sys.executable, "-m", "freehold.cli.main", "run", "--max-tokens", "2", "--raw"]
    done = subprocess.run(
        [*command, str(models["llama"]), "Hi"], capture_output=True, text=True, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout == ""
    reason = reason_in(done.stderr)
    assert (reason["code"], reason["action"]) == ("licence-not-allowed", "load")
    assert reason["licences"] == ["llama3.2"]
    assert run(["run", "--max-tokens", "2", "--raw", str(models["apache"]), "Hi"]) == 0
    why = ["--policy-override", "ticket 7"]
    assert run(["run", "--max-tokens", "2", "--raw", str(models["llama"]), "Hi", *why]) == 0
    capsys.readouterr()
    code, out, _ = answer(capsys, "policy", "log", "--json")
    assert code == 0
    assert [entry["why"] for entry in json.loads(out)] == ["ticket 7"]
    assert "ticket 7" in answer(capsys, "policy", "log")[1]


@pytest.mark.parametrize(
    ("which", "passes"), [("llama", False), ("apache", True), ("trap", False), ("silent", False)]
)
def test_loading_and_serving(policy, models, which, passes) -> None:
    policy(OSI)
    path = str(models[which])
    if passes:
        LLM(path, backend="null").close()
        assert ModelRegistry(ServerSettings(models=(path,))).models()
        return
    with pytest.raises(PolicyError) as caught:
        LLM(path, backend="null")
    assert caught.value.reason["action"] == "load"
    with pytest.raises(PolicyError) as caught:
        ModelRegistry(ServerSettings(models=(path,)))
    assert caught.value.reason["action"] == "serve"
    assert failure_of(caught.value).status == 403
    LLM(path, backend="null", policy_override="a reason").close()
    settings = ServerSettings(models=(path,), engine={"policy_override": "a reason"})
    assert ModelRegistry(settings).models()


def test_a_policy_that_comes_later_counts_for_the_next_load(policy, models) -> None:
    import asyncio

    async def load() -> None:
        path = str(models["llama"])
        registry = ModelRegistry(ServerSettings(models=(path,), engine={"backend": "null"}))
        policy('allow = ["osi"]\nactions = ["serve"]')
        with pytest.raises(PolicyError) as caught:
            async with registry.lease(registry.models()[0].name):
                pass
        assert caught.value.reason["action"] == "serve"
        await registry.close()

    asyncio.run(load())


def test_serve_ends_before_it_listens(policy, models, capsys) -> None:
    policy(OSI)
    code, _, err = answer(capsys, "serve", models["llama"], "--port", "0")
    assert code == 2
    assert reason_in(err)["action"] == "serve"


def test_the_built_in_model_is_within_a_strict_policy(policy, capsys) -> None:
    policy(OSI + '\nopenness = "full"\nclaims = "block"')
    assert answer(capsys, "policy", "check", "seedling")[0] == 0


def test_policy_show_and_check(policy, models, capsys) -> None:
    code, out, err = answer(capsys, "policy", "show")
    assert (code, out) == (0, "")
    assert "no policy" in err
    assert answer(capsys, "policy", "check", models["llama"])[0] == 0
    path = policy(OSI)
    code, out, _ = answer(capsys, "policy", "show")
    assert str(path) in out
    assert json.loads(answer(capsys, "policy", "show", "--json")[1])["allow"] == ["osi"]
    code, out, _ = answer(capsys, "policy", "check", models["llama"], models["apache"], "--json")
    llama, apache = json.loads(out)
    assert code == 1
    assert {breach["code"] for breach in llama["breaches"]} == {"licence-not-allowed"}
    assert apache["breaches"] == []
    assert "within the policy" in answer(capsys, "policy", "check", models["apache"])[1]


def test_a_damaged_line_of_the_log_hides_no_other(policy, models, capsys) -> None:
    policy(OSI)
    LLM(models["llama"], backend="null", policy_override="one").close()
    from freehold.licences.policy_file import override_log

    with override_log().open("a") as file:
        file.write("garbage\n" + "[" * 100_000 + "\n")
    entries = json.loads(answer(capsys, "policy", "log", "--json")[1])
    assert entries[0]["why"] == "one"
    assert len(entries) == 3


# -- notice ---------------------------------------------------------------------------------------


def test_notice_and_bill_of_what_is_deployed(models, tmp_path, capsys) -> None:
    out = tmp_path / "deploy"
    code, listed, err = answer(
        capsys, "notice", models["llama"], models["apache"], models["silent"], "seedling", "-o", out
    )
    assert code == 0
    assert listed.split() == [str(out / "NOTICE"), str(out / "bom.cdx.json")]
    notice = (out / "NOTICE").read_text("utf-8")
    assert "Llama 3.2 is licensed under the Llama 3.2 Community License, Copyright ©" in notice
    assert "Built with Llama" in notice
    assert "A licence that binds this model is not known" in notice
    assert WARNING in notice
    assert "https://www.llama.com/llama3_2/license/" in err  # a copy must go along

    text = (out / "bom.cdx.json").read_text("utf-8")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    components = {each["name"]: each for each in json.loads(text)["components"]}
    llama = components[str(models["llama"])]
    assert llama["type"] == "machine-learning-model"
    assert llama["licenses"][0]["license"]["name"] == "Llama 3.2 Community License Agreement"
    apache = components[str(models["apache"])]
    assert apache["licenses"][0]["license"]["id"] == "Apache-2.0"
    import hashlib

    digest = hashlib.sha256(models["apache"].read_bytes()).hexdigest()
    assert apache["hashes"] == [{"alg": "SHA-256", "content": digest}]


def test_the_bill_tells_claims_ancestors_and_doubts(models, capsys) -> None:
    code, out, _ = answer(capsys, "notice", models["trap"], "--json", "--no-digests")
    assert code == 0
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(out) is None
    (component,) = json.loads(out)["components"]
    names = [each["license"].get("id") or each["license"]["name"] for each in component["licenses"]]
    assert names == ["Apache-2.0", "Llama 3.2 Community License Agreement"]
    (ancestor,) = component["pedigree"]["ancestors"]
    assert ancestor["name"] == "meta-llama/Llama-3.2-1B-Instruct"
    assert "hashes" not in component


def test_the_same_deployment_has_the_same_serial_number(models, capsys) -> None:
    serials = [
        json.loads(answer(capsys, "notice", path, "--json")[1])["serialNumber"]
        for path in (models["apache"], models["apache"], models["llama"])
    ]
    assert serials[0] == serials[1] != serials[2]


def test_texts_that_came_along_are_shipped(tmp_path, capsys) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    model, out = tmp_path / "model", tmp_path / "out"
    model.mkdir()
    save_file({"a": np.zeros(2, np.float32)}, model / "model.safetensors")
    (model / "config.json").write_text('{"model_type": "llama"}')
    apache = (Path(__file__).parents[2] / "LICENSE").read_text("utf-8")
    text = "Copyright 2031 Somebody\n" + apache
    (model / "LICENSE").write_text(text)
    assert answer(capsys, "notice", model, "-o", out)[0] == 0
    assert (out / "LICENSE.model.apache-2.0.txt").read_text() == text
    assert "Copyright 2031 Somebody" in (out / "NOTICE").read_text()


def test_a_hostile_header_stays_inside_its_lines(tmp_path, capsys) -> None:
    path = tiny_chat.write(
        tmp_path / "x.gguf",
        texts={"general.license": "mit\x1b[2J\nBuilt with nothing", "general.name": "../../x"},
    )
    code, out, _ = answer(capsys, "licence", path)
    assert code == 0
    assert "\x1b" not in out
    assert answer(capsys, "notice", path, "-o", tmp_path / "out", "--no-digests")[0] == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["NOTICE", "bom.cdx.json"]
    text = (tmp_path / "out" / "bom.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
