"""Colours and markers of charts: on light paper, on dark paper."""

INK = {
    "bg": ("#ffffff", "#161b22"),
    "ink": ("#1b2330", "#e8ecf1"),
    "muted": ("#566070", "#a3adba"),
    "grid": ("#e6e9ee", "#2a313b"),
    "axis": ("#98a1ad", "#5d6875"),
    "other": ("#7d7468", "#b5aa9b"),
}

BACKENDS = {
    "eager": ("#644f5c", "#9f8b8f", "o"),
    "eager-autocast": ("#e2629f", "#e4aff5", "s"),
    "eager-compiled": ("#6c44c5", "#7e7ebd", "^"),
    "folded": ("#0f417b", "#219efb", "D"),
    "folded-triton": ("#2b95d8", "#d3f5ff", "v"),
    "onnxruntime-cpu": ("#a34900", "#f68845", "h"),
    "onnxruntime-cuda": ("#c48300", "#f2c102", "P"),
    "onnxruntime-tensorrt": ("#723d1f", "#b97f58", "X"),
    "openvino-cpu": ("#9d04ff", "#960afc", "<"),
    "tensorrt": ("#538059", "#6ce6b2", "*"),
}
"""Colour on light, colour on dark and matplotlib's marker of each backend. The colours stay apart (CIELAB distance 20
and more) for the three kinds of colour blindness too; no two share a marker, so that none rests on colour."""

STAGES = {
    "decode": ("#dfc27d", "#c9a95c"),
    "preprocess": ("#bf812d", "#a8772f"),
    "copy in": ("#8c510a", "#7d5420"),
    "encoder": ("#08306b", "#1f5fa8"),
    "cost volume": ("#6baed6", "#8cc8ec"),
    "guidance": ("#c6dbef", "#a9c3dd"),
    "spatial stream": ("#2171b5", "#3f93d6"),
    "semantic stream": ("#5e4fa2", "#8f83d1"),
    "EPL": ("#9ecae1", "#c4e3f5"),
    "decoder": ("#35978f", "#3fa79e"),
    "engine": ("#4a6fa5", "#6f97d1"),
    "label map": ("#c994c7", "#d9a8d7"),
    "copy out": ("#88419d", "#a15cb8"),
}
"""In the order in which an image passes them: earth before the network, blue in it, violet after it."""


def colours() -> dict[str, tuple[str, str]]:
    """Light and dark colour of everything, by the name of its CSS variable."""
    pairs = {name: (light, dark) for name, (light, dark, _) in BACKENDS.items()}
    return {name.replace(" ", "-"): pair for name, pair in (INK | STAGES | pairs).items()}


def colour(name: str) -> str:
    """The light colour of a backend, a stage or a kind of ink; of one without its own, that of the others."""
    return colours().get(name.replace(" ", "-"), INK["other"])[0]


def marker(backend: str) -> str:
    """A backend's marker."""
    return BACKENDS[backend][2] if backend in BACKENDS else "o"
