"""An example or two of every verb, which its help shows last."""

from __future__ import annotations

EXAMPLES: dict[str, tuple[str, ...]] = {
    "demo": ("isthmus demo --out isthmus-demo",),
    "join": (
        "isthmus join photos/ recordings/ --out my.world",
        "isthmus join photos/ recordings/ --texts words.txt --out my.world --dry-run",
    ),
    "encode": (
        "isthmus encode photos/ --encoder clip --into clip.space",
        "isthmus encode captions.csv --encoder clap --into clap.space --modality text",
    ),
    "import": (
        "isthmus import clip_image.parquet --into clip.space --modality image",
        "isthmus import a.npy --ids a.txt --into clap.space --modality audio",
    ),
    "inspect": ("isthmus inspect clip.space", "isthmus inspect clip.space clap.space --via text"),
    "update": ("isthmus update clip.space photos/ --modality image",),
    "remove": ("isthmus remove clip.space blurred.jpg --modality image",),
    "rename": (
        "isthmus rename clip.space --name photos",
        "isthmus rename clip.space --modality image --id old.jpg=new.jpg",
    ),
    "merge": ("isthmus merge clip-2024.space clip-2025.space --into clip.space",),
    "connect": (
        "isthmus connect clip.space clap.space --via text --out unified.bridge",
        "isthmus connect clip.space clap.space --via text --method cca --out x.bridge",
    ),
    "extend": (
        "isthmus extend clip.space clap.space --via text --out unified.bridge",
        "isthmus extend unified.bridge ulip.space --via image --out three.bridge",
    ),
    "official": ("isthmus official --help",),
    "project": (
        "isthmus project unified.bridge clip.space clap.space --into unified.space",
        "isthmus project unified.bridge clip.space --into lance:vectors",
    ),
    "evaluate": (
        "isthmus evaluate unified.bridge --query clap.space/audio \\",
        "    --gallery clip.space/image --pairs pairs.csv --baselines",
    ),
    "search": (
        "isthmus search my.world --text 'a dog barks' --explain",
        "isthmus search unified.bridge --audio dog.wav --gallery clip.space/image",
    ),
    "serve": (
        "isthmus serve my.world",
        "isthmus serve unified.bridge --gallery clip.space/image",
    ),
    "export": ("isthmus export unified.bridge --format onnx --out onnx",),
    "report": (
        "isthmus report my.world --out report.html",
        "isthmus report unified.bridge --query clap.space/audio \\",
        "    --gallery clip.space/image --pairs pairs.csv --out report.html",
    ),
    "benchmarks": ("isthmus benchmarks", "isthmus benchmarks audiocaps"),
    "suite": ("isthmus suite unified.bridge --benchmark audiocaps --data AudioCaps/",),
    "compare": ("isthmus compare a.bridge b.bridge --benchmark audiocaps --data AudioCaps/",),
    "ablate": ("isthmus ablate --config grid.toml --out ablation",),
    "vocabulary": ("isthmus vocabulary --search violin", "isthmus vocabulary --out names.csv"),
    "encoders": ("isthmus encoders",),
    "doctor": ("isthmus doctor",),
}


def epilog(verb: str) -> str:
    """The lines below the help of a verb; the mark keeps them from being filled into one paragraph."""
    lines = "\n".join(f"  {line}" for line in EXAMPLES[verb])
    return f"\b\n{'Examples' if len(EXAMPLES[verb]) > 1 else 'Example'}:\n{lines}"
