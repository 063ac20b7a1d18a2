"""What a run records of where it comes from, and how two records are compared."""

import subprocess

import pytest

from imgrec_cli.machine import available_memory_bytes, cpu_name, git_state
from imgrec_cli.origin import command, differences, machine_record, without_home


def test_the_command_can_be_typed_again_and_names_no_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", "/home/alice")
    config = tmp_path.__class__("/home/alice/my configs/a.yaml")
    text = command(config, ["train.epochs=3", "data.folder=/home/alice/photos"])
    assert text == "imgrec train '~/my configs/a.yaml' --set train.epochs=3 --set data.folder=~/photos"
    assert "alice" not in without_home("/home/alice/x: no such file")


def test_a_machine_record_holds_no_name_of_user_or_host(monkeypatch):
    import getpass
    import json
    import platform

    pytest.importorskip("keras")
    text = json.dumps(machine_record("tensorflow", "CPU with 2 threads", 2, True))
    for name in {platform.node(), getpass.getuser()} - {"", "root", "localhost"}:
        assert name not in text


def test_differences_are_told_by_key():
    before = {"threads": 2, "cpu": "a", "versions": {"keras": "1", "numpy": "2", "system": "x"}}
    now = {"threads": 1, "cpu": "a", "versions": {"keras": "3", "numpy": "2", "system": "y"}}
    assert differences(before, now) == ["threads: 2 → 1", "keras: 1 → 3"]
    assert differences(before, before) == []


def test_git_state_is_commit_and_whether_files_differ(tmp_path):
    assert git_state(tmp_path / "missing") is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@x"]
    try:
        subprocess.run([*git, "init", "-q"], check=True)
    except OSError:
        pytest.skip("needs git")
    (tmp_path / "a.yaml").write_text("a")
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "x"], check=True)
    state = git_state(tmp_path)
    assert len(state["commit"]) == 40
    assert state["changed"] is False
    (tmp_path / "a.yaml").write_text("b")
    assert git_state(tmp_path)["changed"] is True


MEMINFO = "MemTotal: 100 kB\nMemFree: 10 kB\nMemAvailable:    50 kB\n"


@pytest.mark.parametrize(
    ("files", "kilobytes"),
    [
        ({}, 50),
        ({"memory.max": "max", "memory.current": "1", "memory.stat": ""}, 50),
        ({"memory.max": "40960", "memory.current": "30720", "memory.stat": "anon 1\ninactive_file 10240\n"}, 20),
        (
            {
                "memory/memory.limit_in_bytes": "40960",
                "memory/memory.usage_in_bytes": "30720",
                "memory/memory.stat": "cache 1\ntotal_inactive_file 0\n",
            },
            10,
        ),
    ],
    ids=["machine", "no limit", "cgroup 2", "cgroup 1"],
)
def test_available_memory_is_the_machine_s_and_the_container_s(tmp_path, files, kilobytes):
    (tmp_path / "meminfo").write_text(MEMINFO)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert available_memory_bytes(tmp_path / "meminfo", tmp_path) == kilobytes * 1024
    assert available_memory_bytes(tmp_path / "none", tmp_path) is None


def test_the_cpu_has_a_name(tmp_path):
    (tmp_path / "cpuinfo").write_text("processor : 0\nmodel name\t: Fast CPU 3000\nflags : x\n")
    assert cpu_name(tmp_path / "cpuinfo") == "Fast CPU 3000"
    assert cpu_name(tmp_path / "none")


def test_the_home_of_another_is_none(monkeypatch):
    monkeypatch.setenv("HOME", "/home/bob")
    for text in ("/home/bobby/x", "/home/bob-2/x", "/mnt/home/bob/x", "/home/bob.old"):
        assert without_home(text) == text
    assert without_home("/home/bob: '/home/bob/x' --set data.folder=/home/bob") == "~: '~/x' --set data.folder=~"
