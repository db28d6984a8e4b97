"""The layers: who may import whom, what an import loads, and how large a function or file may be."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("samtok_data", "converters", "tokenizer_model", "pipelines")

# Which of our packages each may import. docs/design.md gives the reasons: change the design before this table.
MAY_IMPORT = {
    "samtok_data": set(),
    "converters": {"samtok_data"},
    "tokenizer_model": {"samtok_data"},
    "pipelines": {"samtok_data", "converters", "tokenizer_model"},
}
# What each must not import, at no level of nesting. Nobody needs torchvision: sam2's image transforms do.
MUST_NOT_IMPORT = {
    "samtok_data": {"torch", "ray", "sam2", "webdataset", "torchvision"},
    "converters": {"torch", "ray", "sam2", "webdataset", "torchvision"},
    "tokenizer_model": {"ray", "torchvision"},
    "pipelines": {"torchvision"},
}
MAX_FUNCTION_LINES = 60
MAX_FILE_LINES = 400


def modules_of(package: str) -> list[Path]:
    found = sorted((ROOT / package).rglob("*.py"))
    assert found, f"no modules in {package}"
    return found


MODULES = [pytest.param(path, id=str(path.relative_to(ROOT))) for package in PACKAGES for path in modules_of(package)]


def imports_of(tree: ast.Module, package: str) -> Iterator[str]:
    """Top-level names of everything that a module imports, in functions and in TYPE_CHECKING blocks too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield package if node.level else (node.module or "").partition(".")[0]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            name = node.args[0] if node.args else None
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                yield name.value.partition(".")[0]


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_point_down_only(package: str) -> None:
    allowed = MAY_IMPORT[package] | {package}
    for path in modules_of(package):
        found = set(imports_of(ast.parse(path.read_text("utf-8")), package))
        assert not (found & set(PACKAGES)) - allowed, path
        assert not found & MUST_NOT_IMPORT[package], path


def test_the_walk_sees_imports_of_every_form() -> None:
    source = """
import a.b, c as d
from e.f import g
from . import h
def i():
    import j
    if True:
        from k import l
importlib.import_module("m.n")
if TYPE_CHECKING:
    from o import p
"""
    assert set(imports_of(ast.parse(source), "ours")) == {"a", "c", "e", "ours", "j", "k", "m", "o"}


def module_names(package: str) -> list[str]:
    names = (".".join(path.relative_to(ROOT).with_suffix("").parts) for path in modules_of(package))
    return [name.removesuffix(".__init__") for name in names]


def test_reading_and_converting_load_nothing_heavy() -> None:
    """What a trainer or a converter pays for; also that importing starts no thread and prints nothing."""
    program = (
        f"import importlib, sys, threading\n"
        f"for name in {module_names('samtok_data') + module_names('converters')!r}:\n"
        f"    importlib.import_module(name)\n"
        f"heavy = {{'torch', 'torchvision', 'ray', 'sam2', 'webdataset', 'datasets', 'hydra', 'pandas', 'click'}}\n"
        f"found = sorted(heavy.intersection(sys.modules))\n"
        f"assert not found, found\n"
        f"assert threading.active_count() == 1, threading.enumerate()\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def importers_of(module: str, node: ast.AST, inside: str = "") -> Iterator[str]:
    """The functions that import a module or what is in it; "" for what is imported with the file."""
    for child in ast.iter_child_nodes(node):
        names = []
        if isinstance(child, ast.Import):
            names = [alias.name for alias in child.names]
        elif isinstance(child, ast.ImportFrom):
            names = [f"{child.module}.{alias.name}" for alias in child.names]
        if any(f"{name}.".startswith(f"{module}.") for name in names):
            yield inside
        is_named = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        yield from importers_of(module, child, f"{inside}.{child.name}".lstrip(".") if is_named else inside)


def test_the_fast_path_is_loaded_by_the_call_that_asks_for_it_alone() -> None:
    """It needs triton, which is not everywhere where torch is."""
    found = {
        (path.name, inside)
        for package in PACKAGES
        for path in modules_of(package)
        if path.parent != ROOT / "tokenizer_model" / "fast"
        for module in ("tokenizer_model.fast", "triton")
        for inside in importers_of(module, ast.parse(path.read_text("utf-8")))
    }
    assert found == {("tokenizer.py", "MaskTokenizer.use_fast_path")}
    program = (
        "import sys, tokenizer_model.loading, tokenizer_model.tokenizer, pipelines.cli\n"
        "found = [name for name in sys.modules if name.startswith('tokenizer_model.fast')]\n"
        "assert not found, found\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_importers_of_a_module_are_seen_in_every_form() -> None:
    source = """
import a.b.c
from a import b
from a.b import d
import a, a.bc
class E:
    def f(self):
        if self:
            from a.b.g import h
if TYPE_CHECKING:
    import a.b
"""
    assert list(importers_of("a.b", ast.parse(source))) == ["", "", "", "E.f", ""]


@pytest.mark.parametrize("path", MODULES)
def test_files_and_functions_are_short(path: Path) -> None:
    text = path.read_text("utf-8")
    assert len(text.splitlines()) <= MAX_FILE_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno + 1 <= MAX_FUNCTION_LINES, node.name


def public_definitions(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.AST]]:
    """Public classes and functions of a module or class; not what stands inside functions, nor overloads."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not child.name.startswith("_"):
            yield prefix + child.name, child
            if isinstance(child, ast.ClassDef):
                yield from public_definitions(child, f"{prefix}{child.name}.")
        elif isinstance(child, ast.If | ast.Try):
            yield from public_definitions(child, prefix)


@pytest.mark.parametrize("path", MODULES)
def test_everything_public_has_a_docstring(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    assert ast.get_docstring(tree), "the module"
    for name, node in public_definitions(tree):
        assert isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        assert ast.get_docstring(node), name
