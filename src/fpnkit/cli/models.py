"""fpnkit models: what can be trained, what ships, and what is inside a model."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError

if TYPE_CHECKING:
    from ..backbones.listing import TimmNetwork
    from ..weights.overview import Contents, PresetFacts

WHAT = ("presets", "timm", "show")

EPILOG = """\
examples:
  fpnkit models                              presets: parameters, multiplications, what ships
  fpnkit models timm 'convnext*'             backbones of timm by name; weights that can be downloaded
  fpnkit models timm 'convnext*' --probe     with strides, channels and parameters: half a second each
  fpnkit models show default                 classes, the whole spec, size, where it came from
  fpnkit models show runs/mine --json -      the same for programs

A model is a spec: a backbone, a pyramid, heads, preprocessing. Start from a preset and change what you like:
  fpnkit train --model faster_rcnn_r50_fpn ...
  fpnkit train --backbone convnext_tiny --pyramid bifpn --channels 128 --head cascade ...
  fpnkit train --set model.rpn.anchor_scale=6 model.pyramid.extra_levels=2 ...
'fpnkit models show NAME' lists every field that --set can change, with its value.
Pyramids: fpn, pan, bifpn, single_map, feature_hierarchy, top_down_only, finest_level, image_pyramid.
"""


def add_parser(verbs: Any) -> argparse.ArgumentParser:
    """Declare the verb and its options."""
    parser = verbs.add_parser(
        "models",
        help="what can be trained, what ships, what is inside a model",
        description="List presets and backbones, or show what is inside a model.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "what", nargs="?", choices=WHAT, default="presets", metavar="WHAT", help=f"{', '.join(WHAT)} (default: presets)"
    )
    parser.add_argument(
        "name",
        nargs="?",
        metavar="NAME",
        help="timm: names, with * and ?; show: a preset, 'default', a run's folder or a .safetensors file",
    )
    parser.add_argument("--probe", action="store_true", help="timm: build each network, without weights")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write it here as JSON, too; - prints nothing else")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """List or show; 0 when done."""
    if arguments.what == "presets" and arguments.name:
        raise ConfigError(f"presets takes no name: did you mean 'fpnkit models show {arguments.name}'?")
    if arguments.what == "show" and not arguments.name:
        raise ConfigError("show expects a preset, 'default', a run's folder or a .safetensors file")
    if arguments.probe and arguments.what != "timm":
        raise ConfigError(f"--probe is for 'fpnkit models timm', not for {arguments.what}")
    return {"presets": _presets, "timm": _timm, "show": _show}[arguments.what](arguments)


def _presets(arguments: argparse.Namespace) -> int:
    from ..weights.overview import preset_facts

    facts = preset_facts()
    if _written(arguments.json, [_preset_as_plain(each) for each in facts]):
        return 0
    from .terminal import console

    console.print(_presets_table(facts))
    console.print(
        "GMAC: multiplications of one image of that size, with 80 classes, in billions. "
        "'fpnkit models show NAME' shows a spec, 'fpnkit models timm' other backbones.",
        soft_wrap=True,
    )
    return 0


def _timm(arguments: argparse.Namespace) -> int:
    from ..backbones.listing import timm_networks

    networks = timm_networks(arguments.name or "*", probe=arguments.probe)
    if _written(arguments.json, [vars(each) for each in networks]):
        return 0
    from .terminal import console

    console.print(_timm_table(networks, probed=arguments.probe))
    console.print(
        f"{len(networks)} networks. Weights: tags of what timm can download, the first for the bare name "
        "(NAME.TAG for another). Train one: fpnkit train --backbone NAME --weights timm ...",
        soft_wrap=True,
    )
    return 0


def _show(arguments: argparse.Namespace) -> int:
    from ..weights.overview import contents

    inside = contents(arguments.name)
    if _written(arguments.json, _contents_as_plain(inside)):
        return 0
    from .terminal import console

    for line in _lines(inside):
        console.print(line, soft_wrap=True)
    return 0


def _written(path: Path | None, content: Any) -> bool:
    """Write JSON where it is asked for; whether that was all."""
    if path is None:
        return False
    if str(path) == "-":
        print(json.dumps(content, indent=1, ensure_ascii=False))
        return True
    from ..files import write_json

    write_json(path, content)
    return False


def _presets_table(facts: list[PresetFacts]) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("preset", no_wrap=True)
    for heading in ("parameters", "GMAC", "at, pixels"):
        table.add_column(heading, justify="right")
    table.add_column("ships")
    for each in facts:
        costs = each.costs
        ships = [f"{one.name}: {_classes(len(one.card.classes))}, {one.size / 1e6:.0f} MB" for one in each.shipped]
        size = f"{costs.size_hw[0]} x {costs.size_hw[1]}"
        table.add_row(each.name, f"{costs.parameters / 1e6:.1f} M", f"{costs.gmacs:.1f}", size, "\n".join(ships))
    return table


def _timm_table(networks: list[TimmNetwork], *, probed: bool) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("name", no_wrap=True)
    if probed:
        table.add_column("strides")
        table.add_column("channels")
        table.add_column("parameters", justify="right")
    table.add_column("weights")
    for each in networks:
        weights = ", ".join(each.pretrained[:3]) + (", ..." if len(each.pretrained) > 3 else "") or "none"
        if not probed:
            table.add_row(each.name, weights)
        elif each.strides is None or each.channels is None or each.parameters is None:
            table.add_row(each.name, f"does not fit: {each.problem}", "", "", weights)
        else:
            levels = (", ".join(map(str, values)) for values in (each.strides, each.channels))
            table.add_row(each.name, *levels, f"{each.parameters / 1e6:.1f} M", weights)
    return table


def _lines(inside: Contents) -> Iterator[str]:
    yield inside.name + (f": {inside.spec}" if inside.spec and str(inside.spec) != inside.name else "")
    if inside.path:
        yield f"  file        {inside.path}, {(inside.size or 0) / 1e6:.1f} MB, sha256 {(inside.sha256 or '')[:12]}..."
        yield f"  written by  fpnkit {inside.fpnkit}"
    for name, value in (inside.run or {}).items():
        yield f"  {name:<11} {' '.join(value) if isinstance(value, list) else value}"
    if inside.card:
        names = inside.card.classes
        yield f"  classes     {len(names)}: {', '.join(names[:12])}{', ...' * (len(names) > 12)}"
    if inside.costs:
        height, width = inside.costs.size_hw
        yield f"  parameters  {inside.costs.parameters / 1e6:.2f} M"
        yield f"  GMAC        {inside.costs.gmacs:.1f}, one image of {height} x {width}"
    elif inside.parameters:
        yield f"  values      {inside.parameters / 1e6:.2f} M in its tensors"
    if inside.spec:
        yield "  spec"
        yield from _tree(inside.spec.as_plain())
    else:
        yield "  a detector of your own: load it by fpnkit.load(..., detector=...)"


def _tree(content: Mapping[str, Any], indent: str = "    ") -> Iterator[str]:
    for name, value in content.items():
        if isinstance(value, Mapping):
            yield f"{indent}{name}"
            yield from _tree(value, indent + "  ")
        else:
            shown = ",".join(map(_word, value)) if isinstance(value, list) else _word(value)
            yield f"{indent}{name:<20} {shown}"


def _word(value: Any) -> str:
    """As --set takes it."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value)


def _preset_as_plain(facts: PresetFacts) -> dict[str, Any]:
    ships = [{"name": each.name, "classes": len(each.card.classes), "bytes": each.size} for each in facts.shipped]
    return {"name": facts.name, **_costs_as_plain(facts.costs), "ships": ships, "spec": facts.spec.as_plain()}


def _contents_as_plain(inside: Contents) -> dict[str, Any]:
    return {
        "name": inside.name,
        "file": str(inside.path) if inside.path else None,
        "bytes": inside.size,
        "sha256": inside.sha256,
        "fpnkit": inside.fpnkit,
        "run": inside.run,
        "classes": list(inside.card.classes) if inside.card else None,
        **_costs_as_plain(inside.costs),
        "spec": inside.spec.as_plain() if inside.spec else None,
    }


def _costs_as_plain(costs: Any) -> dict[str, Any]:
    if costs is None:
        return {"parameters": None, "gmacs": None, "size_hw": None}
    return {"parameters": costs.parameters, "gmacs": round(costs.gmacs, 3), "size_hw": list(costs.size_hw)}


def _classes(count: int) -> str:
    return f"{count} class{'es' * (count != 1)}"
