"""fpnkit bench: what a model costs on this machine."""

import pytest

PARTS = {"backbone and pyramid", "RPN head", "proposals", "RoI head and suppression"}


def check(ended, figures, network_hw: list[int]) -> None:
    """What every engine measures and prints."""
    assert ended.code == 0, ended.err
    assert all(0 < each["minimum"] <= each["median"] <= each["maximum"] for each in figures["parts"].values())
    assert figures["size_hw"] == [48, 64]
    assert figures["network_hw"] == network_hw
    assert figures["images_a_second"] > 0
    assert figures["memory"] > 100
    for words in ("whole", "images a second", "peak memory", figures["machine"]["CPU"]):
        assert words in ended.out


def test_a_network_is_measured_part_by_part(cli, weights, tmp_path, read_json, photo) -> None:
    out = tmp_path / "figures.json"
    ended = cli("bench", weights, "--image", photo, "--rounds", 2, "--device", "cpu", "--json", out)
    figures = read_json(out)
    check(ended, figures, [96, 128])
    assert (figures["engine"], figures["streams"]) == ("torch", 1)
    assert figures["parts"].keys() == PARTS | {"whole", "resizing"}
    assert "RPN head" in ended.out


def test_a_graph_is_measured_as_a_whole_with_several_streams(cli, exported, tmp_path, read_json, photo) -> None:
    out = tmp_path / "figures.json"
    words = ("--engine", "onnxruntime", "--streams", 2, "--rounds", 2, "--image", photo, "--json", out)
    ended = cli("bench", exported, *words)
    figures = read_json(out)
    check(ended, figures, [240, 320])
    assert (figures["engine"], figures["streams"]) == ("onnxruntime", 2)
    assert figures["parts"].keys() == {"whole", "resizing"}


@pytest.mark.parametrize("option", ["--rounds", "--streams"])
def test_none_is_refused(cli, option) -> None:
    cli("bench", "default", option, 0).refuses(2, "--rounds and --streams must be 1 or more")
