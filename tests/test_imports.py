"""Imports point one way: every `import` of the package, those within functions too, against a table of who sees whom.

errors, files, config <- nn, data, metrics <- task, search <- tasks | training <- recipe <- run <- transfer <- session
<- series, model <- exporting <- api <- cli
"""

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import seqtext

ROOT = Path(seqtext.__file__).parent

LOW = {"errors", "files", "config"}
CORE = LOW | {"nn", "data", "metrics"}
# The groups of `seqtext` that a group may import from besides itself. `nn` and `data` know nothing of each other, and
# `tasks` and `training` nothing of each other.
MAY = {
    "errors": set(),
    "files": {"errors"},
    "config": {"errors", "files"},
    "nn": {"errors", "config"},
    "data": LOW,
    "metrics": LOW | {"data"},
    "draw": {"metrics"},
    "task": CORE | {"draw"},
    "search": CORE | {"task"},
    "tasks": CORE | {"draw", "task", "search"},
    "training": CORE | {"task", "search"},
    "shelf": {"config", "errors"},
    "ranges": {"config", "errors"},
    "recipe": CORE | {"task", "search", "tasks", "training", "shelf", "ranges"},
    "run": CORE | {"seqtext", "shelf", "task", "search", "tasks", "training", "recipe"},
    "transfer": CORE | {"shelf", "task", "search", "tasks", "training", "recipe", "run"},
    "session": CORE | {"shelf", "task", "search", "tasks", "training", "recipe", "run", "transfer"},
    "tuning": CORE | {"task", "search", "tasks", "training", "ranges", "recipe", "run", "session"},
    "series": CORE | {"shelf", "task", "search", "tasks", "training", "recipe", "run", "transfer", "session"},
    "model": CORE | {"task", "search", "training", "recipe", "run", "session"},
    "exporting": CORE | {"task", "tasks", "training", "recipe", "run", "session", "model"},
    "plot": {"errors", "files"},
    "inspecting": CORE | {"draw", "task", "search", "tasks", "training", "recipe", "run", "session", "model"},
    "report": CORE
    | {"draw", "plot", "task", "search", "tasks", "training", "recipe", "run", "session", "model"}
    | {"inspecting"},
    "api": CORE
    | {"seqtext", "shelf", "task", "search", "tasks", "training", "recipe", "run", "transfer", "session", "series"}
    | {"model", "exporting", "plot", "inspecting", "report", "tuning"},
    "__init__": {"api", "errors"},
}
MAY["cli"] = set(MAY) | {"seqtext"}
MAY["__main__"] = {"cli"}
NO_TORCH = {"errors", "files", "config", "data", "metrics", "draw"}


def imports(path, module):
    """(line, full dotted name) of everything a file imports, at any depth; relative names are resolved."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{origin}.{alias.name}") for alias in node.names)


def faults(root):
    """A line for every import under `root` that points the wrong way."""
    found = []
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        module = ".".join(["seqtext", *(part for part in parts if part != "__init__")])
        group = parts[0]
        if group not in MAY:
            found.append(f"{module}: '{group}' has no place in MAY of tests/test_imports.py")
            continue
        for line, name in imports(path, module):
            top, _, rest = name.partition(".")
            if top == "torch" and group in NO_TORCH:
                found.append(f"{module}:{line} imports {name}; {group} must not know torch")
            if top != "seqtext" or name == "seqtext.__version__":
                continue
            target = rest.partition(".")[0]
            target = target if target in MAY else "seqtext"
            if target != group and target not in MAY[group]:
                found.append(f"{module}:{line} imports {name}; {group} may import {', '.join(sorted(MAY[group]))} only")
    return found


def test_imports_point_one_way():
    assert "\n".join(faults(ROOT)) == ""


@pytest.mark.parametrize(
    ("file", "code", "message"),
    [
        (
            "nn/rnn.py",
            "import seqtext.data.labels",
            "seqtext.nn.rnn:1 imports seqtext.data.labels; nn may import config",
        ),
        (
            "tasks/a.py",
            "def f():\n  from seqtext.training import loop",
            "seqtext.tasks.a:2 imports seqtext.training.loop",
        ),
        ("training/a.py", "from ..tasks.ner import Ner", "seqtext.training.a:1 imports seqtext.tasks.ner.Ner"),
        ("training/__init__.py", "from .. import tasks", "seqtext.training:1 imports seqtext.tasks; training may"),
        ("data/a.py", "if 0:\n  from torch import nn", "seqtext.data.a:2 imports torch.nn; data must not know torch"),
        ("metrics/b.py", "from seqtext import train", "seqtext.metrics.b:1 imports seqtext.train; metrics may"),
        ("config.py", "from seqtext import recipe", "seqtext.config:1 imports seqtext.recipe; config may"),
        ("utils.py", "", "seqtext.utils: 'utils' has no place"),
        ("tasks/b.py", "from . import ner\nfrom seqtext.nn import crf\nfrom seqtext import __version__", None),
    ],
)
def test_the_check_itself_sees_a_wrong_import(tmp_path, file, code, message):
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(code)
    found = faults(tmp_path)
    assert [line[: len(message)] for line in found] == [message] if message else found == []


def loaded(*modules):
    """The heavy libraries that a fresh Python has loaded after importing `modules`."""
    heavy = ["torch", "datasets", "accelerate"]
    code = f"import sys\nfor m in {modules!r}: __import__(m)\nprint(*[h for h in {heavy!r} if h in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("module", ["seqtext", "seqtext.cli.app"])
def test_the_face_loads_nothing_heavy(module):
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not there yet")
    assert loaded(module) == []


def test_data_and_metrics_load_no_torch_through_others():
    modules = [
        ".".join(["seqtext", *path.relative_to(ROOT).with_suffix("").parts])
        for group in ("data", "metrics")
        for path in sorted((ROOT / group).glob("*.py"))
    ]
    assert "seqtext.data.samples" in modules
    assert loaded(*modules) == []
