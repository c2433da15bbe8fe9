"""docs/conformance.md: every clause of the gateway contract with the tests that hold it.

The clauses are in docs/conformance.yaml; tests name theirs with `@pytest.mark.clause("…")`.
"""

from __future__ import annotations

import ast
from pathlib import Path

import yaml

from ccr_docs.markdown import made_from, table
from ccr_docs.markdown import page as joined

Test = tuple[str, str]  # file, name


class Mismatch(Exception):
    """A clause without a test, or a mark of an unknown clause."""


def page(root: Path) -> str:
    """The whole page. Raises Mismatch."""
    document = yaml.safe_load((root / "docs/conformance.yaml").read_text(encoding="utf-8"))
    tests = marks(root)
    known = [f"{section['id']}.{name}" for section in document["sections"] for name in section["clauses"]]
    untested = [clause for clause in known if clause not in tests]
    unknown = [f"{clause} ({tests[clause][0][0]})" for clause in tests if clause not in known]
    if untested or unknown:
        problems = [f"no test holds the clause {clause}" for clause in untested]
        raise Mismatch("; ".join(problems + [f"a test names the unknown clause {clause}" for clause in unknown]))
    blocks = []
    for s, section in enumerate(document["sections"], 1):
        blocks.append(f"## {s} {section['title']}")
        rows = [
            (f"{s}.{c} `{section['id']}.{name}`", text, "<br>".join(map(_link, tests[f"{section['id']}.{name}"])))
            for c, (name, text) in enumerate(section["clauses"].items(), 1)
        ]
        blocks.append(table(("clause", "the relay must", "held by"), rows))
    source = "docs/conformance.yaml and the `clause` marks of the tests"
    return joined("# Conformance to Claude Code's gateway contract", made_from(source), document["intro"], *blocks)


def marks(root: Path) -> dict[str, list[Test]]:
    """Clause → the tests that are marked with it, in the order of the files."""
    found: dict[str, list[Test]] = {}
    for path in sorted((root / "tests").rglob("test_*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                for clause in filter(None, map(_clause, node.decorator_list)):
                    found.setdefault(clause, []).append((str(path.relative_to(root)), node.name))
    return found


def _clause(decorator: ast.expr) -> str | None:
    if not isinstance(decorator, ast.Call) or ast.unparse(decorator.func) != "pytest.mark.clause":
        return None
    return str(ast.literal_eval(decorator.args[0]))


def _link(test: Test) -> str:
    file, name = test
    return f"[{name.removeprefix('test_').replace('_', ' ')}](../{file})"
