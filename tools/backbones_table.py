"""Try a model of every timm family for docs/backbones.md: python tools/backbones_table.py [FAMILY ...]

Each model is built without trained weights, run forward on images of three sizes and backward once. With names of
families, only these are tried and nothing is written.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import timm as timm_library
import torch

from fpnkit.backbones import Backbone, timm
from fpnkit.errors import FpnkitError

DOCUMENT = Path(__file__).parents[1] / "docs" / "backbones.md"
BEGIN, END = "<!-- table: tools/backbones_table.py -->", "<!-- end of table -->"
SIZES = ((96, 128), (75, 53), (33, 47))
MODELS = {
    "beit": "beit_base_patch16_224",
    "byoanet": "halonet_h1",
    "byobnet": "mobileone_s1",
    "cait": "cait_xxs24_224",
    "coat": "coat_tiny",
    "convit": "convit_tiny",
    "convmixer": "convmixer_768_32",
    "convnext": "convnext_atto",
    "cpubone": "cpubone_nano",
    "crossvit": "crossvit_tiny_240",
    "csatv2": "csatv2",
    "cspnet": "cs3darknet_focus_s",
    "cspnext": "cspnext_tiny",
    "davit": "davit_tiny",
    "deepseek_vit": "deepseek_vit_412m",
    "deit": "deit_tiny_patch16_224",
    "densenet": "densenet121",
    "dla": "dla34",
    "dpn": "dpn48b",
    "edgenext": "edgenext_xx_small",
    "efficientformer": "efficientformer_l1",
    "efficientformer_v2": "efficientformerv2_s0",
    "efficientnet": "tf_efficientnet_lite0",
    "efficientvim": "efficientvim_m1",
    "efficientvit_mit": "efficientvit_b0",
    "efficientvit_msra": "efficientvit_m0",
    "eva": "vit_tiny_patch16_dinov3_qkvb",
    "fasternet": "fasternet_t0",
    "fastvit": "fastvit_t8",
    "focalnet": "focalnet_tiny_srf",
    "gcvit": "gcvit_xxtiny",
    "gemma4_vit": "gemma4_vit_167m",
    "ghostnet": "ghostnet_050",
    "hardcorenas": "hardcorenas_b",
    "hgnet": "hgnetv2_b0",
    "hiera": "hiera_tiny_224",
    "hieradet_sam2": "sam2_hiera_tiny",
    "hrnet": "hrnet_w18_small",
    "iformer": "iformer_t",
    "inception_next": "inception_next_atto",
    "inception_resnet_v2": "inception_resnet_v2",
    "inception_v3": "inception_v3",
    "inception_v4": "inception_v4",
    "lcnetv2": "lcnetv2_small",
    "levit": "levit_128s",
    "lowformer": "lowformer_b0",
    "mambaout": "mambaout_femto",
    "maxxvit": "maxvit_pico_rw_256",
    "metaformer": "poolformerv2_s12",
    "mlp_mixer": "gmlp_ti16_224",
    "mobilenetv3": "mobilenetv3_small_050",
    "mobilenetv5": "mobilenetv5_base",
    "mobilevit": "mobilevit_xxs",
    "mvitv2": "mvitv2_tiny",
    "naflexvit": "naflexvit_base_patch16_parfac_gap",
    "nasnet": "nasnetalarge",
    "nest": "nest_tiny",
    "nextvit": "nextvit_small",
    "nfnet": "nf_regnet_b0",
    "pit": "pit_ti_224",
    "pnasnet": "pnasnet5large",
    "pvt_v2": "pvt_v2_b0",
    "qwen3_vit": "qwen3_vit_88m",
    "rdnet": "rdnet_tiny",
    "regnet": "regnetx_002",
    "repghost": "repghostnet_050",
    "repvit": "repvit_m1",
    "res2net": "res2next50",
    "resnest": "resnest14d",
    "resnet": "resnet10t",
    "resnetv2": "resnetv2_18",
    "rexnet": "rexnet_100",
    "selecsls": "selecsls42",
    "senet": "legacy_seresnet18",
    "sequencer": "sequencer2d_s",
    "shvit": "shvit_s1",
    "sknet": "skresnet18",
    "starnet": "starnet_s050",
    "swiftformer": "swiftformer_xs",
    "swin_transformer": "swin_tiny_patch4_window7_224",
    "swin_transformer_v2": "swinv2_tiny_window8_256",
    "swin_transformer_v2_cr": "swinv2_cr_tiny_224",
    "tiny_vit": "tiny_vit_5m_224",
    "tnt": "tnt_s_legacy_patch16_224",
    "tresnet": "tresnet_m",
    "twins": "twins_svt_small",
    "vgg": "vgg11",
    "visformer": "visformer_tiny",
    "vision_transformer": "vit_tiny_patch16_224",
    "vision_transformer_hybrid": "vit_tiny_r_s16_p8_224",
    "vision_transformer_relpos": "vit_srelpos_small_patch16_224",
    "vision_transformer_sam": "samvit_base_patch16_224",
    "vitamin": "vitamin_small_224",
    "volo": "volo_d1_224",
    "vovnet": "ese_vovnet19b_slim_dw",
    "xception": "legacy_xception",
    "xception_aligned": "xception41p",
    "xcit": "xcit_nano_12_p8_224",
}
"""One of the smallest models of each family; a family is a module of timm."""


def main(families: list[str]) -> None:
    """Try the families, all unless some are named, and write the table."""
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    rows, failures = [], []
    for family, model in MODELS.items():
        if families and family not in families:
            continue
        try:
            rows.append(f"| {family} | `{model}` | {check(model)} |")
        except Exception as error:  # whatever goes wrong belongs into the table
            failures.append(f"- {family}, `{model}`: {error}")
        print(f"{len(rows)} of {len(rows) + len(failures)} work, last tried {family} ({model})", flush=True)
    for line in failures:
        print(line)
    if not families:
        write(rows, failures)


def check(model: str) -> str:
    """Strides, channels and million parameters of a backbone that works.

    Raises:
        FpnkitError: maps differ from the published levels, or a parameter that should learn gets no gradient.
    """
    backbone = timm(model, freeze_batch_norm=False).eval()
    with torch.no_grad():
        wrong = [text for size in SIZES for text in deviations(backbone, size)]
    if wrong:
        raise FpnkitError("; ".join(wrong))
    backbone.train()
    sum(each.square().mean() for each in backbone(torch.rand(2, 3, *SIZES[0])).values()).backward()
    untrained = [name for name, each in backbone.named_parameters() if each.requires_grad and each.grad is None]
    if untrained:
        raise FpnkitError(f"no gradient reaches {', '.join(untrained)}")
    strides, channels = zip(*((level.stride, level.channels) for level in backbone.levels), strict=True)
    size = sum(each.numel() for each in backbone.parameters()) / 1e6
    return f"{', '.join(map(str, strides))} | {', '.join(map(str, channels))} | {size:.1f}"


def deviations(backbone: Backbone, size: tuple[int, int]) -> Iterator[str]:
    """What is not as the levels say."""
    maps = backbone(torch.rand(1, 3, *size))
    for level in backbone.levels:
        _, channels, *cells = maps[level.name].shape
        fits = all(a // level.stride <= n <= -(-a // level.stride) for a, n in zip(size, cells, strict=True))
        if channels != level.channels or not fits:
            yield f"{level} gave {channels} channels and {cells} cells for an image of {size}"


def write(rows: list[str], failures: list[str]) -> None:
    """Replace the table in the document."""
    left_out = sorted(set(timm_library.list_modules()) - set(MODELS))
    table = [
        f"{len(rows)} of {len(MODELS) + len(left_out)} families work (timm {timm_library.__version__}).",
        "",
        "| family | model tried | strides | channels | parameters, million |",
        "|---|---|---|---|---|",
        *rows,
        *(["", "These do not:", "", *failures] if failures else []),
        *([f"- not tried: {', '.join(left_out)}"] if left_out else []),
    ]
    text = DOCUMENT.read_text()
    head, rest = text.split(BEGIN)
    DOCUMENT.write_text(head + "\n".join([BEGIN, *table, END]) + rest.split(END)[1])


if __name__ == "__main__":
    main(sys.argv[1:])
