"""fpnkit bench: what a model costs on this machine."""

import pytest


@pytest.mark.parametrize("streams", [1, 2])
def test_parts_are_measured_and_written(cli, weights, tmp_path, read_json, photo, streams) -> None:
    out = tmp_path / "figures.json"
    words = ("bench", weights, "--image", photo, "--rounds", 2, "--streams", streams, "--device", "cpu", "--json", out)
    ended = cli(*words)
    assert ended.code == 0, ended.err
    figures = read_json(out)
    parts = {"backbone and pyramid", "RPN head", "proposals", "RoI head and suppression"}
    assert figures["parts"].keys() == parts | {"whole", "resizing"}
    assert all(0 < each["minimum"] <= each["median"] <= each["maximum"] for each in figures["parts"].values())
    assert figures["engine"] == "torch"
    assert figures["size"] == [48, 64]
    assert figures["network_size"] == [480, 640]
    assert figures["streams"] == streams
    assert figures["images_a_second"] > 0
    assert figures["memory"] > 100
    for words in ("whole", "RPN head", "images a second", "peak memory"):
        assert words in ended.out


@pytest.mark.parametrize("option", ["--rounds", "--streams"])
def test_none_is_refused(cli, option) -> None:
    cli("bench", "default", option, 0).refuses(2, "--rounds and --streams must be 1 or more")
