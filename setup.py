"""Installs the top-level folders as one package, `pcaseg`."""

from pathlib import Path

from setuptools import find_packages, setup

RUNTIME = ["numpy>=1.26", "pillow>=10.1", "tokenizers>=0.20", "safetensors>=0.4.3", "ftfy>=6.1", "tqdm>=4.64"]
ONNXRUNTIME = ["onnxruntime>=1.18"]
TORCH = [
    "torch>=2.11",
    "torchvision",
    "open_clip_torch>=3.0",
    "timm>=1.0.20",
    "onnx>=1.17",
    "onnxscript>=0.5",
    "onnxslim>=0.1.80",
    *ONNXRUNTIME,
]
TENSORBOARD = "tensorboard>=2.15"
TRITON = "triton>=3.6; platform_system == 'Linux'"
DATASETS = ["scipy>=1.11", "pycocotools>=2.0.8"]
BENCHMARKS = [
    *TORCH,
    "scikit-image>=0.22",
    "pytest-benchmark>=4.0",
    "tabulate>=0.9",
]
EXTRAS = {
    "runtime": [],  # the base install: numpy and Pillow side, no torch; add one of the backends below
    "onnxruntime": ONNXRUNTIME,
    "onnxruntime-gpu": ["onnxruntime-gpu>=1.18"],
    "tensorrt": ["tensorrt>=10.3", "cuda-python>=12.9", "onnx>=1.17", "filelock>=3.12"],
    "torch": TORCH,
    "triton": [*TORCH, TRITON],
    "training": [*TORCH, TENSORBOARD],
    "datasets": DATASETS,
    "benchmarks": BENCHMARKS,
    "dev": [
        *BENCHMARKS,
        *DATASETS,
        TENSORBOARD,
        TRITON,
        "pytest>=8",
        "pytest-timeout>=2.3",
        "hypothesis>=6.100",
        "scikit-learn>=1.4",
        "selenium>=4.20",
        "ruff>=0.9",
        "mypy>=1.13",
        "types-tabulate>=0.9",
    ],
}

setup(
    name="pcaseg",
    version="0.1.0",
    description="Deployment pipeline for PCA-Seg, an open-vocabulary semantic and part segmentation model",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.10",
    packages=find_packages(include=["pcaseg", "pcaseg.*"]),  # follows the links to the top-level folders
    package_dir={"": "."},  # so that an editable install is a plain path, which editors and mypy follow
    package_data={
        "pcaseg": ["data/class_lists/*.json", "weights/*", "py.typed"],
        "pcaseg.kernels": ["tuning.json"],
        "pcaseg.export.plugins": ["cpp/*", "cpp/stand_in/*"],
    },
    install_requires=RUNTIME,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["pcaseg=pcaseg.cli:main"]},
)
