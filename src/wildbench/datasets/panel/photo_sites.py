"""Camera-like sites from a local copy of PACS and a real table of labels per camera site.

A site has the style of one PACS domain and the label distribution of one real site. The images are split into
disjoint pools first (pretraining, train, validation, test, unlabelled), each site draws from the pools: an image may
be in several sites, always in the same split. The pretraining tasks, one per domain, have their own images. Nothing
is copied: the table of sites names the images relative to a root.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wildpdiff.disk import json_bytes, write_file
from wildpdiff.errors import DataError
from wildpdiff.rng import numpy_generator

DOMAINS = ("art_painting", "cartoon", "photo", "sketch")
CLASSES = ("dog", "elephant", "giraffe", "guitar", "horse", "house", "person")
# Shares of each domain's and class's images; the splits' shares follow their sizes, so that no pool runs out first.
POOL_SHARES = {"pretraining": 0.15, "train": 0.40, "validation": 0.10, "test": 0.27, "unlabelled": 0.08}
PRETRAINING_SHARES = {"train": 0.70, "validation": 0.15, "test": 0.15}
LEAST_SMOOTHING = 0.05
SMOOTHINGS = np.round(np.arange(LEAST_SMOOTHING, 1.0001, 0.01), 2)
LEAST_TABLE_IMAGES = 30

Prior = npt.NDArray[np.float64]
Pools = dict[tuple[str, str, str], list[str]]
"""Image paths by (domain, class, pool), shuffled."""


@dataclass(frozen=True)
class SitesConfig:
    """Sizes.

    Attributes:
        sites: seen and unseen sites together.
        unseen: unseen sites.
        seed: of pools, sites and images.
        train, validation, test, unlabelled: images per site.
    """

    sites: int = 40
    unseen: int = 10
    seed: int = 0
    train: int = 120
    validation: int = 30
    test: int = 80
    unlabelled: int = 24

    @property
    def splits(self) -> dict[str, int]:
        """Images per site by split."""
        names = ("train", "validation", "test", "unlabelled")
        return {name: int(getattr(self, name)) for name in names}


@dataclass(frozen=True)
class Site:
    """One site: its domain, the real site that gave the label distribution, and how much that was smoothed."""

    name: str
    group: str
    domain: str
    table_site: str
    smoothing: float
    prior: dict[str, float]


def _read_pools(pacs: Path, root: Path, seed: int) -> Pools:
    """Every image in exactly one pool."""
    pools: Pools = {}
    for domain in DOMAINS:
        for label in CLASSES:
            images = sorted((pacs / domain / label).glob("*.jpg"))
            if not images:
                raise DataError(
                    f"{pacs / domain / label} holds no images; a copy of PACS has the form DOMAIN/CLASS/*.jpg."
                )
            order = numpy_generator(seed, "pool", domain, label).permutation(len(images))
            names = [images[index].resolve().relative_to(root.resolve()).as_posix() for index in order]
            ends = np.round(np.cumsum(list(POOL_SHARES.values())) * len(names)).astype(int)
            for pool, start, end in zip(POOL_SHARES, [0, *ends[:-1]], ends, strict=True):
                pools[domain, label, pool] = names[start:end]
    return pools


def _read_label_table(path: Path, seed: int) -> tuple[dict[str, str], dict[str, Counter[str]]]:
    """The mapping from the table's labels to PACS classes, and the counts of PACS classes per site.

    The table's seven most frequent labels are kept, the others dropped; which becomes which class is a permutation
    drawn by the seed, the same for all sites. Sites with fewer than 30 images left are dropped.
    """
    with path.open(encoding="utf-8") as file:
        pairs = [(row["site"], row["label"]) for row in csv.DictReader(file)]
    kept = sorted(label for label, _ in Counter(label for _, label in pairs).most_common(len(CLASSES)))
    if len(kept) < len(CLASSES):
        raise DataError(f"{path} has {len(kept)} labels; {len(CLASSES)} or more are needed.")
    order = numpy_generator(seed, "labels").permutation(len(CLASSES))
    mapping = {label: CLASSES[index] for label, index in zip(kept, order, strict=True)}
    counts: dict[str, Counter[str]] = {}
    for site, label in pairs:
        if label in mapping:
            counts.setdefault(site, Counter())[mapping[label]] += 1
    return mapping, {site: found for site, found in sorted(counts.items()) if found.total() >= LEAST_TABLE_IMAGES}


def _class_counts(prior: Prior, total: int) -> npt.NDArray[np.int64]:
    """Whole numbers of images that add up to the total, by largest remainders."""
    exact = prior * total
    counts = np.floor(exact).astype(np.int64)
    counts[np.argsort(counts - exact, kind="stable")[: total - int(counts.sum())]] += 1
    return counts


def _fitting_prior(counts: Counter[str], domain: str, sizes: dict[str, int], pools: Pools) -> tuple[float, Prior]:
    """The real distribution mixed with the uniform one: by 5 %, or by as much as the domain's pools require."""
    real = np.array([counts[label] for label in CLASSES]) / counts.total()
    for smoothing in SMOOTHINGS:
        prior = (1 - smoothing) * real + smoothing / len(CLASSES)
        wanted = {split: _class_counts(prior, size) for split, size in sizes.items()}
        if all(
            number <= len(pools[domain, label, split])
            for split, numbers in wanted.items()
            for label, number in zip(CLASSES, numbers, strict=True)
        ):
            return float(smoothing), prior
    raise DataError(f"The images of {domain} are too few for sites of {sizes} images; request smaller sites.")


def _draw_sites(options: SitesConfig, table: dict[str, Counter[str]], pools: Pools) -> list[Site]:
    """Each drawn real site goes to the domain, of those with sites left to fill, that needs the least smoothing."""
    if not 0 <= options.unseen < options.sites <= len(table):
        raise DataError(f"The table has {len(table)} usable sites; request at most as many, and fewer unseen ones.")
    sizes = options.splits
    left = Counter(DOMAINS[index % len(DOMAINS)] for index in range(options.sites))
    unseen_left = Counter(DOMAINS[::-1][index % len(DOMAINS)] for index in range(options.unseen))
    names = sorted(table)
    order = numpy_generator(options.seed, "sites").permutation(len(names))[: options.sites]
    sites: list[Site] = []
    for number, index in enumerate(order):
        fits = {domain: _fitting_prior(table[names[index]], domain, sizes, pools) for domain in DOMAINS if left[domain]}
        domain = min(fits, key=lambda name: (fits[name][0], -left[name]))
        left[domain] -= 1
        group = "unseen" if unseen_left[domain] > 0 else "seen"
        unseen_left[domain] -= 1
        smoothing, prior = fits[domain]
        shares = dict(zip(CLASSES, prior.tolist(), strict=True))
        sites.append(Site(f"site-{number:03d}", group, domain, names[index], smoothing, shares))
    return sites


def _site_rows(site: Site, options: SitesConfig, pools: Pools) -> list[dict[str, str]]:
    rows = []
    prior = np.array([site.prior[label] for label in CLASSES])
    for split, size in options.splits.items():
        counts = _class_counts(prior, size)
        for label, count in zip(CLASSES, counts, strict=True):
            pool = pools[site.domain, label, split]
            draw = numpy_generator(options.seed, site.name, split, label).permutation(len(pool))[:count]
            hidden = split == "unlabelled"
            rows += [
                _row(pool[index], "" if hidden else label, site.name, split, group=site.group, domain=site.domain)
                for index in draw
            ]
    return rows


def _pretraining_rows(domain: str, pools: Pools) -> list[dict[str, str]]:
    """One task with as many images of every class as the pools of most classes allow."""
    rows = []
    per_class = int(np.median([len(pools[domain, label, "pretraining"]) for label in CLASSES]))
    for label in CLASSES:
        images = pools[domain, label, "pretraining"][:per_class]
        ends = np.round(np.cumsum(list(PRETRAINING_SHARES.values())) * len(images)).astype(int)
        for split, start, end in zip(PRETRAINING_SHARES, [0, *ends[:-1]], ends, strict=True):
            task = f"pretraining-{domain}"
            rows += [_row(image, label, task, split, group="pretraining", domain=domain) for image in images[start:end]]
    return rows


def _row(path: str, label: str, task: str, split: str, *, group: str, domain: str) -> dict[str, str]:
    return {"path": path, "label": label, "task": task, "split": split, "group": group, "domain": domain}


def write_sites(
    pacs: Path, label_table: Path, folder: Path, config: SitesConfig = SitesConfig(), *, root: Path | None = None
) -> Path:
    """Write ``sites.csv``, and last ``meta.json``, which marks it complete; returns the table's path.

    Args:
        pacs: a local copy of PACS, ``DOMAIN/CLASS/*.jpg``.
        label_table: CSV with the columns ``site`` and ``label``, a row per image.
        folder: where both files go.
        config: sizes and seed.
        root: folder that the paths in the table are relative to; ``pacs`` by default.

    Raises:
        DataError: images or sites are missing or too few.
        ArtifactError: the disk refuses.
    """
    pools = _read_pools(pacs, pacs if root is None else root, config.seed)
    mapping, table = _read_label_table(label_table, config.seed)
    sites = _draw_sites(config, table, pools)
    rows = [row for domain in DOMAINS for row in _pretraining_rows(domain, pools)]
    rows += [row for site in sites for row in _site_rows(site, config, pools)]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_file(folder / "sites.csv", text.getvalue().encode())
    meta = {
        "seed": config.seed,
        "label_of_the_table_to_class": mapping,
        "pool_images": {pool: sum(len(pools[d, c, pool]) for d in DOMAINS for c in CLASSES) for pool in POOL_SHARES},
        "rows": dict(Counter(f"{row['group']}/{row['split']}" for row in rows)),
        "usable_table_sites": len(table),
        "mean_smoothing": round(float(np.mean([site.smoothing for site in sites])), 3),
        "mean_largest_share": round(float(np.mean([max(site.prior.values()) for site in sites])), 3),
        "sites": [asdict(site) for site in sites],
    }
    write_file(folder / "meta.json", json_bytes(meta))
    return folder / "sites.csv"
