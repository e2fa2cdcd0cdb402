"""The house: ranks, cycles, forbidden imports, forbidden names, read from the files themselves."""

import ast
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
RANK = {
    "core": 0,
    "layers": 1,
    "data": 1,
    "models": 2,
    "tokenizers": 2,
    "extractors": 2,
    "sampling": 3,
    "metrics": 3,
    "train": 4,
    "launch": 5,
}
ONLY_IN = {
    "flax": {"lab/layers", "lab/models", "lab/tokenizers", "lab/extractors"},
    "orbax": {"lab/core"},
    "absl": {"lab/launch"},
    "time": {"lab/launch", "experiments", "tools", "benchmarks"},
    "datetime": {"lab/launch", "analysis", "experiments", "tools", "benchmarks"},
    "tensorflow_datasets": {"lab/data"},
    "grain": set(),
    "matplotlib": {"analysis", "experiments"},
    "pickle": set(),
    "marshal": set(),
    "tensorflow": set(),
}


def python_files():
    rooms = ("lab", "configs", "analysis", "experiments", "benchmarks", "tools")
    return [p for room in rooms for p in sorted((ROOT / room).rglob("*.py"))]


def imports(path):
    """(module, line) of every import of a file, those inside functions included."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            found += [(node.module, node.lineno)]
    return found


def room(path):
    parts = path.relative_to(ROOT).parts
    return "/".join(parts[:2]) if parts[0] == "lab" else parts[0]


ALL = python_files()


@pytest.mark.parametrize("path", ALL, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_follow_the_ranks(path):
    here = room(path)
    for module, line in imports(path):
        top = module.split(".")[0]
        where = f"{path.relative_to(ROOT)}:{line}: imports {module}"
        if top in ONLY_IN:
            assert here in ONLY_IN[top], f"{where}; allowed in {sorted(ONLY_IN[top])}"
        if top == "orbax":
            assert path.name == "orbax_arrays.py", f"{where}; only lab/core/orbax_arrays.py may"
        if top == "lab":
            _check_lab_import(here, module, where)
        if top == "analysis":
            assert here in ("analysis", "experiments", "benchmarks", "tools"), where
        if top == "configs":
            assert here in ("configs", "experiments", "lab/launch", "tools", "benchmarks"), where


def _check_lab_import(here, module, where):
    assert here != "analysis", where
    if here == "configs":
        assert module == "lab.core.units", where
    if here == "experiments":
        assert module.startswith("lab.core"), where
    if here.startswith("lab/") and here != "lab/__init__.py":
        mine, theirs = here.split("/")[1], module.split(".")[1]
        assert mine == theirs or RANK[theirs] < RANK[mine], f"{where}: not of a lower rank"


def test_every_room_has_a_rank():
    rooms = {p.name for p in (ROOT / "lab").iterdir() if p.is_dir() and p.name != "__pycache__"}
    assert rooms <= set(RANK)


def test_no_import_cycles_between_files():
    graph = {}
    for path in ALL:
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        graph[name] = {m for m, _ in _top_level_imports(path)}
    done, active = set(), []

    def visit(name):
        assert name not in active, f"cycle: {' -> '.join([*active, name])}"
        if name in done or name not in graph:
            return
        active.append(name)
        for module in graph[name]:
            visit(module)
        active.pop()
        done.add(name)

    for name in graph:
        visit(name)


def _top_level_imports(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = []
    for node in tree.body:
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [(node.module, node.lineno)]
            found += [(f"{node.module}.{alias.name}", node.lineno) for alias in node.names]
    return found


def test_sizes_and_names():
    for path in ALL:
        lines = path.read_text(encoding="utf-8").splitlines()
        assert len(lines) <= 400, f"{path}: {len(lines)} lines"
        assert path.stem not in ("utils", "common", "misc", "helpers"), path
        for node in ast.walk(ast.parse("\n".join(lines))):
            if isinstance(node, ast.FunctionDef):
                length = node.end_lineno - node.lineno + 1
                assert length <= 60, f"{path}:{node.lineno} {node.name}: {length} lines"


def test_nothing_is_evaluated():
    for path in ALL:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec"), f"{path}:{node.lineno}"


def test_public_functions_say_what_they_do():
    for path in ALL:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{path}:{node.lineno} {node.name}: no docstring"


def test_nothing_large_or_generated_is_tracked():
    files = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    for name in filter(None, files):
        path = ROOT / name
        if path.exists():
            assert path.stat().st_size < 1 << 20, f"{name} is over 1 MiB"
            assert not name.startswith((".venv/", "runs/", ".cache/")), name
