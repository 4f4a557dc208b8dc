"""The variants of MFNN that can be asked for by name, each a config and perhaps weights."""

from __future__ import annotations

from enhancekit.specs import EnhancerSpec, WeightsSpec

__all__ = ["VARIANTS"]

_TRAIN = "enhancekit train enhancekit_mfnn:recipes/{}.toml --set data.root=FOLDER"
_PACKED = {"width": 32, "counts": (4, 4, 4), "pack": 2, "context": "mfnn:exposure"}
_CONTROLS = {"exposure": (0.05, 0.95)}

VARIANTS = (
    EnhancerSpec(
        name="mfnn",
        summary="Dark photographs, one CPU is enough (three scales, 16 SCR, width 16)",
        task="low-light",
        backbone="mfnn:mfnn",
        config={"width": 16, "counts": (2, 4, 10), "context": "mfnn:exposure"},
        controls=_CONTROLS,
        default=True,
        weights=WeightsSpec(
            resource="enhancekit_mfnn:weights/mfnn.safetensors",
            sha256="93ec96220ca55b6edb124b88eb842d3c31b927b5716a73ce1760adc48ff75ab0",
        ),
        train_hint=_TRAIN.format("mfnn"),
    ),
    EnhancerSpec(
        name="mfnn-lite",
        summary="Dark photographs, fast (three scales, 12 SCR, width 32, packed by 2)",
        task="low-light",
        backbone="mfnn:mfnn",
        config=_PACKED,
        controls=_CONTROLS,
        weights=WeightsSpec(
            resource="enhancekit_mfnn:weights/mfnn-lite.safetensors",
            sha256="da45f7a81201d1be75616c9e09b4c2a351194b418658fbd8d751578bb023b55a",
        ),
        train_hint=_TRAIN.format("mfnn-lite"),
    ),
    EnhancerSpec(
        name="mfnn-lol",
        summary="LOL's benchmark, trained on LOL alone (width 32, packed by 2)",
        task="low-light",
        backbone="mfnn:mfnn",
        config=_PACKED,
        controls=_CONTROLS,
        weights=WeightsSpec(
            resource="enhancekit_mfnn:weights/mfnn-lol.safetensors",
            sha256="4ac5e5c0925557630e3fec26ca294a6e5fd0144a8e930365585622dd07c43852",
        ),
        train_hint=_TRAIN.format("mfnn-lol"),
    ),
    EnhancerSpec(
        name="mfnn-denoise",
        summary="Noise of any strength, sigma 0 to 50 or a camera's (32 SCR, width 32, packed)",
        task="denoise",
        backbone="mfnn:mfnn",
        config={
            "width": 32,
            "counts": (16, 8, 8),
            "block_options": {"expansion": 2},
            "pack": 2,
            "context": "mfnn:noise_level",
        },
        controls={"sigma": (0, 50)},
        weights=WeightsSpec(
            resource="enhancekit_mfnn:weights/mfnn-denoise.safetensors",
            sha256="34ae26bb22c2119a0740320470949a5efd89ae3c71bf8cc96dbdc45fe2e551a5",
        ),
        train_hint=_TRAIN.format("mfnn-denoise"),
    ),
    EnhancerSpec(
        name="mfnn-denoise-lite",
        summary="Noise of any strength, fast (12 SCR, width 32, packed)",
        task="denoise",
        backbone="mfnn:mfnn",
        config={"width": 32, "counts": (4, 4, 4), "pack": 2, "context": "mfnn:noise_level"},
        controls={"sigma": (0, 50)},
        weights=WeightsSpec(
            resource="enhancekit_mfnn:weights/mfnn-denoise-lite.safetensors",
            sha256="e9826b94bdd88949b584061c56950f20af96eda158b9bf01a866cf6461849573",
        ),
        train_hint=_TRAIN.format("mfnn-denoise-lite"),
    ),
    EnhancerSpec(
        name="mfnn-sr-x2",
        summary="Twice the height and width (width 32)",
        task="super-resolution",
        backbone="mfnn:mfnn",
        config={"width": 32, "counts": (4, 4, 4), "scale": 2, "back_projection": True},
        weights=WeightsSpec(
            resource="enhancekit_mfnn:weights/mfnn-sr-x2.safetensors",
            sha256="f6637ec596deea170e34cb5939b4c1979e126697453ba26ad4bb7635c6c84bb0",
        ),
        scale=2,
        train_hint=_TRAIN.format("mfnn-sr-x2"),
    ),
    EnhancerSpec(
        name="mfnn-report",
        summary="The report's reduced model, literally (two scales, 3 SCR, width 128)",
        task="low-light",
        backbone="mfnn:mfnn",
        config={
            "width": 128,
            "counts": (1, 2),
            "block_options": {"residual": False},
            "share_weights": True,
            "dropout": 0.5,
            "output": "sigmoid",
            "scaled": False,
        },
        train_hint=_TRAIN.format("mfnn-report"),
    ),
    EnhancerSpec(
        name="mfnn-paper",
        summary="The network as the report wished it (three scales, 16 SCR, width 128)",
        task="low-light",
        backbone="mfnn:mfnn",
        config={
            "width": 128,
            "counts": (2, 4, 10),
            "norm": True,
            "dropout": 0.5,
            "output": "sigmoid",
            "scaled": False,
        },
        train_hint=_TRAIN.format("mfnn-paper"),
    ),
)
