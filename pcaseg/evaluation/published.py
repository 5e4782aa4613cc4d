"""Published results to compare with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """Results of one network of a publication.

    Attributes:
        title: the network, as tables call it.
        source: where the numbers stand.
        miou: in percent by data set.
    """

    title: str
    source: str
    miou: dict[str, float]


ORDER = ("ade20k_847", "pascal_context_459", "ade20k_150", "pascal_context_59", "voc_20", "voc_20b")
"""The data sets with published results, as tables order them."""

PUBLISHED = (
    Published("CAT-Seg B", "its repository", dict(zip(ORDER, (12.0, 19.0, 31.8, 57.5, 94.6, 77.3), strict=True))),
    Published("CAT-Seg L", "its repository", dict(zip(ORDER, (16.0, 23.8, 37.9, 63.3, 97.0, 82.5), strict=True))),
    Published("PCA-Seg L", "as listed publicly", dict(zip(ORDER, (18.3, 26.7, 41.5, 64.7, 98.4), strict=False))),
)
"""By network; PCA-Seg's mIoU on PAS-20b is not published, nor are results on parts in this form."""
