"""One large file in which some places are overwritten."""

from functools import partial

from bench import Bench
from inputs import make_large, overwrite
from programs import Limit
from rows.tree import grown

TITLES = {"large.first": "first backup, one file of 8 GB", "large.changed": "16 places of 512 KiB overwritten in it"}
LIMITS = {"large.changed": "`b3sum --num-threads 2`"}


def run(bench: Bench) -> None:
    size = bench.sizes.large
    source = bench.input("large", size, lambda to: make_large(to, size), size)
    image = source.path / "image"
    for _, names in bench.rounds("large", 1):
        players = bench.players("large", 0, names, source.path)
        for p in players:
            if not isinstance(p, Limit):
                bench.time("large.first", p, p.backup(), source.path, p.sizes)
        for round_ in range(bench.repeat):
            overwrite(image, round_)
            for p in players:
                if isinstance(p, Limit):
                    bench.time("large.changed", p, [bench.binaries["b3sum"], "--num-threads", "2", str(image)], source.path, round_=round_)
                else:
                    bench.time("large.changed", p, p.backup(), source.path, partial(grown, p, p.stored()), round_=round_)
