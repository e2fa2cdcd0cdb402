"""What the tests of plans for a pod share."""

import argparse

from lab.launch import compile_search
from lab.launch.compile_plan import make_plan


def plan_of(config_name, topology, *, overrides=(), **flags):
    names = ("layout", "subcodes", "classes", "examples", "grid", "vocabulary", "channels")
    given = {**dict.fromkeys(names), "slices": 1, "config": config_name, "topology": topology}
    return make_plan(argparse.Namespace(**{**given, **flags}), dict(overrides))


def choices_of(plan, *, layouts=None, batches=None, exhaustive=False):
    flags = argparse.Namespace(layouts=layouts, batches=batches, exhaustive=exhaustive)
    return compile_search.choices(flags, plan)
