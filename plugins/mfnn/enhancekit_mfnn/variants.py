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
            sha256="c11416b9be496fbb966d10733065d094feec34c31ab5040dd38951790d9321ee",
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
            sha256="4bd3881c0b5d804831bb4827ec96978adff701109f4506c281b925be253d74c4",
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
        train_hint=_TRAIN.format("mfnn-lol"),
    ),
    EnhancerSpec(
        name="mfnn-denoise",
        summary="Noise of any strength, sigma 0 to 50 or a camera's (26 SCR, width 32, packed)",
        task="denoise",
        backbone="mfnn:mfnn",
        config={"width": 32, "counts": (10, 8, 8), "pack": 2, "context": "mfnn:noise_level"},
        controls={"sigma": (0, 50)},
        weights=WeightsSpec(
            resource="enhancekit_mfnn:weights/mfnn-denoise.safetensors",
            sha256="a602bf5d51e297456b5a4a3064b1c0942d77bcba1b735f96c1dea5401cd1bb0e",
        ),
        train_hint=_TRAIN.format("mfnn-denoise"),
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
