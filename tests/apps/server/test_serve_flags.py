"""What the command takes and refuses, before anything is begun."""

from pathlib import Path

import pytest
from proofs import begin

from tintype.apps.serve import USER, _tokens

BASE64 = "q83vEjRWeJCrze8SNFZ4+A/b=="


@pytest.mark.parametrize(
    "token", [BASE64, "aaaa=bbbb cccc", "=aaaaaaaa", "ann=", "1ann=aaaaaaaa", "a" * 40 + "=aaaaaaaa"]
)
def test_a_token_of_the_environment_is_taken_whole(token: str) -> None:
    assert _tokens([], token) == {USER: token}


@pytest.mark.parametrize("token", [BASE64, "aaaaaaaa=", "aaaaaaaa==", "=aaaaaaaa", "plain-token"])
def test_so_is_one_in_base64_without_a_name(token: str) -> None:
    assert _tokens([token], None) == {USER: token}
    assert _tokens([f"ann={token}"], None) == ({"ann": token} if token[0] != "=" else {USER: f"ann={token}"})


def test_each_user_has_a_token() -> None:
    assert _tokens(["ann=aaaaaaaa", "bob=bbbbbbbb"], "cccccccc") == {
        "ann": "aaaaaaaa", "bob": "bbbbbbbb", USER: "cccccccc",
    }  # fmt: skip
    assert _tokens([], None) == _tokens([], "") == {}


@pytest.mark.parametrize(
    ("flags", "variable"),
    [
        (["ann=secret-1", "ann=secret-2"], None),
        (["ann=secret-1", "bob=secret-1"], None),
        (["secret-1", "secret-2"], None),
        (["secret-1"], "secret-2"),
        (["ann=secret-1"], "secret-1"),
    ],
)
def test_two_of_one_are_refused_and_no_token_is_told(flags: list[str], variable: str | None) -> None:
    with pytest.raises(ValueError, match="expected each user and each token once") as told:
        _tokens(flags, variable)
    assert "secret" not in str(told.value)


@pytest.mark.parametrize(
    ("flags", "environment"),
    [
        (["--token", "ann=secret"], {}),
        ([], {"TINTYPE_TOKEN": "secret"}),
        (["--token", "ann=secret-of-ann", "--token", "ann=secret-of-bob"], {}),
        (["--token", "ann=secret-of-ann"], {"TINTYPE_TOKEN": "secret-of-ann"}),
    ],
    ids=["short", "short variable", "two of one", "one of two"],
)
def test_the_command_tells_none_either(tmp_path: Path, flags: list[str], environment: dict[str, str]) -> None:
    with pytest.raises(AssertionError, match="it ended with 2: tintype serve: --token") as told:
        begin(tmp_path, *flags, environment=environment)
    assert "secret" not in str(told.value)


def test_a_data_folder_that_is_none_is_refused_with_a_sentence(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    for path in (file, file / "below", Path("/proc/tintype")):
        with pytest.raises(
            AssertionError, match=f"it ended with 2: tintype serve: --data {path}: .*; expected a folder"
        ):
            begin(path)
    assert file.read_text() == "mine"
