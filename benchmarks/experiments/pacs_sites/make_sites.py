"""A table of camera-like sites from a local copy of PACS and a real table of labels per camera site.

A site has the style of one PACS domain and the label distribution of one real site. The images are split into
disjoint pools first (pretraining, train, validation, test, unlabelled), each site draws from the pools: an image may
be in several sites, always in the same split. The pretraining tasks, one per domain, have their own images. Nothing
is copied: the table names the images relative to ``--root``.

    python make_sites.py --pacs PACS --table conservision_site_label.csv --out sites --sites 40 --unseen 10 --seed 0
"""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path

from wildbench.datasets.panel.photo_sites import CLASSES, DOMAINS, SitesConfig, write_sites

__all__ = ["CLASSES", "DOMAINS", "main"]


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pacs", type=Path, required=True, help="a local copy of PACS: DOMAIN/CLASS/*.jpg")
    parser.add_argument(
        "--table", type=Path, required=True, help="CSV with the columns site and label, a row per image"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for sites.csv and meta.json")
    parser.add_argument("--root", type=Path, help="folder that the paths are relative to (default: --pacs)")
    parser.add_argument("--sites", type=int, default=40, help="seen and unseen sites together")
    parser.add_argument("--unseen", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train", type=int, default=120)
    parser.add_argument("--validation", type=int, default=30)
    parser.add_argument("--test", type=int, default=80)
    parser.add_argument("--unlabelled", type=int, default=24)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    options = parse_arguments(arguments)
    config = SitesConfig(**{field.name: getattr(options, field.name) for field in fields(SitesConfig)})
    write_sites(options.pacs, options.table, options.out, config, root=options.root)


if __name__ == "__main__":
    main()
