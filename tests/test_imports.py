"""The import ladder, and what is never imported: read from the sources, not from running."""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import cnnkern
from support import run_python

PACKAGE = Path(cnnkern.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))

# A module imports only from its own rung's modules of the same name and from lower rungs.
LADDER = (
    {"errors", "shapes", "structure"},
    {"codegen"},
    {"kernels"},
    {"lazy"},
    {"graph"},
    {"ops"},
    {"arguments", "naive", "passes", "permutes", "reader", "inputs"},
    {"plan"},
    {"engine", "functional"},
    {"api", "inspect", "demo", "cli", "__init__", "__main__"},
)
RUNG = {name: rung for rung, names in enumerate(LADDER) for name in names}
# `Model.summary` prints with the inspect tools, which it imports when called.
DOWNWARD = {("engine", "inspect")}
# Modules of one rung that build on each other.
SIDEWAYS = {("naive", "arguments"), ("passes", "permutes"), ("functional", "engine")} | {
    (user, used) for user in LADDER[-1] for used in LADDER[-1]
}
EXECUTORS = {"pickle", "marshal", "shelve", "importlib", "ctypes", "subprocess", "runpy"}
UNSAFE_CALLS = {"eval", "exec", "compile", "__import__"}


@dataclass(frozen=True)
class Import:
    """One imported module: absolute name, and whether a function body imports it."""

    file: Path
    module: str
    in_function: bool

    @property
    def top(self) -> str:
        return self.module.split(".")[0]

    @property
    def user(self) -> str:
        return self.file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(file: Path) -> Iterator[Import]:
    """Yield what a file imports, without what only type checkers see."""
    package = ["cnnkern", *file.relative_to(PACKAGE).parts[:-1]]

    def visit(node: ast.AST, in_function: bool) -> Iterator[Import]:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(file, alias.name, in_function)
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            if module == "cnnkern":  # from . import name
                for alias in node.names:
                    yield Import(file, f"cnnkern.{alias.name}", in_function)
            else:
                yield Import(file, module, in_function)
        in_function = in_function or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, in_function)

    return visit(ast.parse(file.read_text()), False)


IMPORTS = [found for file in SOURCES for found in imports_of(file)]


def users(*modules: str) -> list[Import]:
    return [i for i in IMPORTS if i.top in modules]


def test_every_module_has_a_rung() -> None:
    names = {file.relative_to(PACKAGE).parts[0].removesuffix(".py") for file in SOURCES}
    assert names == set(RUNG)


@pytest.mark.parametrize("name", RUNG)
def test_the_ladder(name: str) -> None:
    for found in (i for i in IMPORTS if i.user == name and i.top == "cnnkern"):
        used = [*found.module.split("."), "__init__"][1]
        if used not in RUNG:  # a name of the package itself, such as __version__
            used = "__init__"
        pair = (name, used)
        is_lower = RUNG[used] < RUNG[name]
        is_allowed = is_lower or used == name or pair in SIDEWAYS
        assert is_allowed or (pair in DOWNWARD and found.in_function), found


def test_the_first_rung_needs_the_standard_library_only() -> None:
    for found in IMPORTS:
        if found.user in LADDER[0]:
            assert found.top in sys.stdlib_module_names, found


def test_only_codegen_imports_llvmlite() -> None:
    assert {found.user for found in users("llvmlite")} == {"codegen"}


def test_only_codegen_and_kernels_import_numba() -> None:
    assert {found.user for found in users("numba")} <= {"codegen", "kernels"}


def test_keras_is_imported_in_functions_only() -> None:
    """Of the reader of live models, and of the comparison that the demo prints."""
    found = users("keras", "tensorflow")
    places = {str(i.file.relative_to(PACKAGE)) for i in found}
    assert places <= {"reader/live.py", "demo/seed_keras.py"}
    assert all(i.in_function for i in found)


def test_h5py_is_imported_in_functions_of_the_reader_only() -> None:
    assert all(i.user == "reader" and i.in_function for i in users("h5py"))


def test_kernels_reach_numba_when_they_compile_only() -> None:
    """The catalogue is read by every process and must not import the loops."""
    found = imports_of(PACKAGE / "kernels" / "__init__.py")
    at_import = {i.module for i in found if not i.in_function}
    assert not at_import & {"numba", "cnnkern.codegen.jit", "cnnkern.codegen.vector"}


def test_the_reader_imports_nothing_that_executes() -> None:
    assert not [i for i in IMPORTS if i.user == "reader" and i.top in EXECUTORS]


@pytest.mark.parametrize("file", sorted(PACKAGE.glob("reader/*.py")), ids=lambda f: f.stem)
def test_the_reader_calls_nothing_that_executes(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in UNSAFE_CALLS, f"{file.name}:{node.lineno}"


@pytest.mark.parametrize("option", ["fastmath", "parallel", "cache", "forceobj"])
def test_numba_options_that_change_results_are_not_used(option: str) -> None:
    for file in SOURCES:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.keyword) and node.arg == option:
                is_true = isinstance(node.value, ast.Constant) and node.value.value is True
                assert not is_true, f"{file}:{node.value.lineno}"


def test_importing_cnnkern_is_light() -> None:
    heavy = ("numba", "llvmlite", "h5py", "tensorflow", "keras", "numpy", "rich")
    code = f"import sys, cnnkern; print([m for m in {heavy} if m in sys.modules])"
    assert run_python(code) == "[]"


def test_public_names_resolve() -> None:
    for name in cnnkern.__all__:
        assert getattr(cnnkern, name) is not None
    assert set(cnnkern.__all__) <= set(dir(cnnkern))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        cnnkern.nothing  # noqa: B018
