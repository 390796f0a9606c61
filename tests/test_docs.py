"""The site, as far as can be seen without building it (`make docs`)."""

import ast
import importlib.util
import pkgutil
import re
import tomllib
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

import ntkbayes

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(p for p in DOCS.rglob("*.md") if "_build" not in p.parts)
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))
SOURCES = sorted((ROOT / "ntkbayes").rglob("*.py"))
ENTRY = re.compile(r"^\.\. (\w+):: (\S+)\n((?:   :.*\n)*)", re.MULTILINE)  # kind, name, options


def in_toctrees() -> set[Path]:
    """Every document that a toctree names, without its suffix."""
    found = set()
    for page in PAGES:
        for tree in re.findall(r"```{toctree}\n(.*?)```", page.read_text(), re.DOTALL):
            for entry in (line for line in tree.split("\n") if line and line[0] != ":"):
                # Notebooks are copied into docs/ when the site is built.
                for folder in (page.parent, ROOT):
                    found |= {p.with_suffix("") for p in folder.glob(entry + ".*")}
    return found


def test_every_page_and_notebook_is_in_a_toctree():
    documents = {path.with_suffix("") for path in (*PAGES, *NOTEBOOKS)}
    assert documents - in_toctrees() == {DOCS / "index"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_a_py_percent_script_that_opens_with_its_title(path):
    text = path.read_text()
    compile(text, str(path), "exec")
    header, first, *_ = text.split("\n# %%")
    assert "format_name: percent" in header
    assert "name: python3" in header
    assert first.startswith(" [markdown]\n# # ")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_uses_names_that_exist(path):
    tree = ast.parse(path.read_text())
    modules = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {a.asname: a.name for a in node.names if a.name == "ntkbayes"}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ntkbayes"):
            imported = importlib.import_module(node.module)
            for each in node.names:
                assert hasattr(imported, each.name) or importlib.util.find_spec(
                    f"{node.module}.{each.name}"
                )
                modules[each.asname or each.name] = f"{node.module}.{each.name}"

    def value(node):
        """What a name of ntkbayes stands for, by attributes of modules alone; None for all else."""
        if isinstance(node, ast.Name) and node.id in modules:
            return pkgutil.resolve_name(modules[node.id])
        parent = value(node.value) if isinstance(node, ast.Attribute) else None
        return getattr(parent, node.attr) if isinstance(parent, ModuleType) else None

    for node in ast.walk(tree):
        value(node)


@pytest.mark.parametrize(
    "name",
    ["which-law", "index", "tutorial", "howto/models", "howto/many-devices", "howto/cluster"],
)
def test_python_blocks_of_pages_parse(name):
    path = DOCS / f"{name}.md"
    for block in re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL):
        compile(block, str(path), "exec")


def test_every_section_of_the_theory_that_is_cited_exists():
    theory = (DOCS / "theory.md").read_text()
    sections = re.findall(r"^\(theory-(\d)\)=\n## (\d)\.", theory, re.MULTILINE)
    assert [a for a, b in sections if a == b] == list("123456789")
    cited = {n for path in SOURCES for n in re.findall(r"THEORY (\d+)", path.read_text())}
    assert cited <= set("123456789")


def prose(page: Path) -> str:
    """Without its blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub and the site make them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


@pytest.mark.parametrize("page", sorted(ROOT.glob("*.md")), ids=lambda page: page.name)
def test_every_link_between_files_leads_to_a_file_and_a_heading(page):
    """Those of the site are checked when it is built."""
    links = re.findall(r"\]\(([^)\s:]+)\)", prose(page))
    for place, _, anchor in (link.partition("#") for link in links):
        target = page.parent / place if place else page
        assert target.exists(), place
        assert not anchor or anchor in anchors(target), f"{place}#{anchor}"


def test_addresses_in_the_readme_are_among_those_that_make_links_asks():
    asked = "".join(page.read_text() for page in (*PAGES, ROOT / "CONTRIBUTING.md"))
    addresses = re.findall(r"https?://[^)\s]+", prose(ROOT / "README.md"))
    assert addresses
    assert [each for each in addresses if each not in asked] == []


def in_the_reference() -> Counter[int]:
    """How often each public object has an entry in docs/api, by its identity."""
    found: Counter[int] = Counter()
    for page in (DOCS / "api").glob("*.md"):
        home = ntkbayes
        for kind, name, options in ENTRY.findall(page.read_text()):
            if kind == "currentmodule":
                home = importlib.import_module(name)
            elif kind == "automodule":
                module = importlib.import_module(name)
                found[id(module)] += 1
                if named := re.search(r":members:(.*)", options):
                    chosen = named[1].replace(",", " ").split()
                    members = chosen or getattr(module, "__all__", None) or defined_in(module)
                    found.update(id(getattr(module, member)) for member in members)
            else:
                place, _, attribute = name.rpartition(".")
                owner = importlib.import_module(place) if place else home
                found[id(getattr(owner, attribute))] += 1
    return found


def defined_in(module: ModuleType) -> list[str]:
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]


def test_every_public_name_is_in_the_reference_once():
    entries = in_the_reference()
    times = {name: entries[id(getattr(ntkbayes, name))] for name in ntkbayes.__all__}
    assert times == dict.fromkeys(ntkbayes.__all__, 1)


def test_every_name_in_the_reference_exists():
    for page in (DOCS / "api").glob("*.md"):
        module = "ntkbayes"
        for kind, name in re.findall(r"^\.\. (\w+):: (\S+)$", page.read_text(), re.MULTILINE):
            if kind in ("automodule", "currentmodule"):
                importlib.import_module(name)
            else:
                full = name if name.startswith("ntkbayes.") else f"{module}.{name}"
                home, _, attribute = full.rpartition(".")
                assert hasattr(importlib.import_module(home), attribute), full


def test_packages_that_build_the_site_are_bounded():
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    assert all(">=" in package and "<" in package for package in groups["docs"])
