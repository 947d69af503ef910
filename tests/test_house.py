"""
The house stands as it was drawn: floors, laws, and a README that says what the code does.

Every check that could pass by looking at nothing has a control beside it that must fail.
"""

import ast
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import requires, version
from itertools import takewhile
from pathlib import Path

import pytest
from typer.main import get_command

import quota_router
from quota_router.cli import app
from quota_router.config import shapes
from quota_router.core.vendors import VENDORS
from quota_router.dialects.vendors import ENDPOINTS
from quota_router.web.app import all_routes

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "quota_router"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
README = (ROOT / "README.md").read_text()
MODULES = sorted(PACKAGE.rglob("*.py"))
LONGEST_FILE = 400
LINT_TIMEOUT_S = 120

OWN_SQL = {
    "store/sqlite.py": "PRAGMAs have no parameters; names and values are constants of that file",
    "store/postgres.py": "LISTEN has no parameters; the channel is a constant",
    "store/rows.py": "SQLAlchemy compiled the text from expressions, once; every value is bound",
    "store/triggers.py": "triggers have no parameters; the statements are constants of that file",
}
OWN_PROCESSES = {"command/process.py": ["subprocess"]}
"""Tools of providers, from an argument list."""
OWN_IMPORTS = {"own_routers.py": ["import_module"]}
"""Routers, as the file on the host names them."""
COMES_WITH = {"multidict": "aiohttp", "pydantic_core": "pydantic", "rich": "typer", "yarl": "aiohttp"}
OF_AN_EXTRA = {
    "psycopg": ("psycopg", "postgres", "store/postgres.py"),
    "yaml": ("pyyaml", "litellm", "cli/importing.py"),
}
"""What one room alone imports, when it is there: its package, and the extra that brings it."""
NOT_IMPORTED = {
    "aiosqlite": "SQLAlchemy loads it by the database's URL",
    "tzdata": "zoneinfo of the standard library reads it where the system has no zones",
}


def name_of(requirement):
    return re.match(r"[A-Za-z0-9._-]+", requirement)[0].lower().replace("_", "-")


def section(title):
    """The text under a heading of the README, up to the next one of its level or above."""
    heading = re.search(rf"^(##+) {re.escape(title)}$", README, re.MULTILINE)
    assert heading, f"README has no section {title!r}"
    return re.split(rf"^##{{1,{len(heading[1]) - 1}}} ", README[heading.end() :], maxsplit=1, flags=re.MULTILINE)[0]


def rows(title):
    """The rows of the first table in a section, as lists of cells, without its head."""
    lines = section(title).partition("\n|")[2].splitlines()
    table = list(takewhile(lambda line: line.startswith("|"), (f"|{lines[0]}", *lines[1:])))
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table[2:]]


def keys(title):
    """The words in back-ticks in the first column of a section's table."""
    return [word for row in rows(title) for word in re.findall(r"`([^`]+)`", row[0])]


# --- floors ---------------------------------------------------------------------------------------------------------


def lint_imports(folder):
    found = subprocess.run(  # noqa: S603 -- a program of this environment, on files of ours
        [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--no-logo", "--config", ROOT / "pyproject.toml"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=LINT_TIMEOUT_S,
        check=False,
    )
    return found.returncode, found.stdout + found.stderr


def test_every_room_leans_only_on_rooms_below_it():
    """The contracts of pyproject.toml hold."""
    code, said = lint_imports(ROOT)
    assert code == 0, said


@pytest.mark.parametrize(
    ("room", "line", "breaks"),
    [
        ("core", "", None),
        ("store", "import quota_router.web", "floors"),
        ("core", "import quota_router.errors, quota_router.dialects", "floors"),
        ("web", "import quota_router.config", "config is read by"),
        ("core", "import asyncio", "are pure"),
        ("dialects", "import aiohttp", "are pure"),
    ],
)
def test_a_toy_house_shows_that_the_contracts_can_break(tmp_path, room, line, breaks):
    """The same contracts over a package of empty rooms: kept as it is, broken by one wrong import."""
    toy = tmp_path / "quota_router"
    toy.mkdir()
    (toy / "__init__.py").touch()
    for floor in PROJECT["tool"]["importlinter"]["contracts"][0]["layers"]:
        for name in floor.split(" | "):
            (toy / f"{name}.py").touch()
    (toy / f"{room}.py").write_text(line)
    code, said = lint_imports(tmp_path)
    assert (code == 0) == (breaks is None), said
    assert breaks is None or re.search(rf"{breaks}.* BROKEN", said), said


# --- tidy rooms -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_opens_with_its_law_and_fits_the_eye(path):
    text = path.read_text()
    tree = ast.parse(text)
    said = ast.get_docstring(tree)
    has_code = any(isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) for node in tree.body)
    assert said, "no docstring"
    assert "Law:" in said or not has_code or path.name == "__main__.py"
    assert len(text.splitlines()) <= LONGEST_FILE


def find_dangers(text):
    """Whatever runs text, starts processes, or makes objects of bytes: none of it belongs in the daemon (threat S29)."""
    modules = {"subprocess", "pickle", "marshal", "shelve", "runpy", "ctypes", "code", "multiprocessing", "builtins"}
    builtin = {"eval", "exec", "compile", "__import__"}
    anyone = {"import_module", "create_subprocess_exec", "create_subprocess_shell", "subprocess_exec", "subprocess_shell"}
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names if alias.name.partition(".")[0] in modules)
            case ast.ImportFrom(module=str(module), names=names):
                is_danger = module.partition(".")[0] in modules
                yield from (alias.name for alias in names if is_danger or alias.name in anyone or is_of_os(module, alias.name))
            case ast.Call(func=ast.Name(id=name)) if name in builtin:
                yield name
            case ast.Attribute(attr=name) if name in anyone:
                yield name
            case ast.Attribute(value=ast.Name(id=owner), attr=name) if is_of_os(owner, name):
                yield f"{owner}.{name}"


def is_of_os(owner, name):
    return owner == "os" and re.match(r"system|popen|exec|spawn|posix_spawn|fork", name)


def find_loose_sql(text):
    """SQL that is not a constant: each is a place where a value could become a statement (threat S22)."""
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Call(func=ast.Name(id="text" | "literal_column"), args=[sql, *_]):
                is_sql = True
            case ast.Call(func=ast.Attribute(value=ast.Name(id=owner), attr="text" | "literal_column"), args=[sql, *_]):
                is_sql = owner in {"sa", "sqlalchemy"}
            case ast.Call(func=ast.Attribute(attr="exec_driver_sql" | "executemany" | "executescript"), args=[sql, *_]):
                is_sql = True
            case ast.Call(func=ast.Attribute(attr="execute"), args=[ast.JoinedStr() | ast.BinOp() as sql, *_]):
                is_sql = True
            case _:
                continue
        if is_sql and not isinstance(sql, ast.Constant):
            yield ast.unparse(node)


def test_nothing_in_the_package_runs_text_and_one_file_each_starts_processes_and_imports_by_name():
    found = {str(path.relative_to(PACKAGE)): dangers for path in MODULES if (dangers := list(find_dangers(path.read_text())))}
    assert found == OWN_PROCESSES | OWN_IMPORTS


def test_sql_is_constant_but_for_the_statements_that_know_no_parameters():
    found = {str(path.relative_to(PACKAGE)) for path in MODULES if any(find_loose_sql(path.read_text()))}
    assert found == set(OWN_SQL)


@pytest.mark.parametrize(
    "line",
    [
        "import subprocess",
        "from pickle import loads",
        "import os; os.system(x)",
        "import os; os.execv(x, y)",
        "from os import system",
        "eval(x)",
        "exec(x)",
        "import importlib; importlib.import_module(x)",
        "from asyncio import create_subprocess_exec",
        "import asyncio; asyncio.create_subprocess_shell(x)",
        "asyncio.get_running_loop().subprocess_exec(x)",
    ],
)
def test_a_danger_is_seen(line):
    assert list(find_dangers(line))


@pytest.mark.parametrize(
    "line", ['text(f"SELECT {x}")', 'sa.text("SELECT " + x)', "conn.exec_driver_sql(x)", 'cursor.execute("SELECT %s" % x)']
)
def test_loose_sql_is_seen(line):
    assert list(find_loose_sql(line))


def imports_of(paths):
    nodes = [node for path in paths for node in ast.walk(ast.parse(path.read_text()))]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    return {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names) - {"quota_router"}


def packages_of(requirements):
    return {name_of(requirement).replace("-", "_") for requirement in requirements}


def test_what_is_imported_is_what_is_required():
    """Nothing is leant on that only happens to be there, and nothing is installed for no reason."""
    imported = {COMES_WITH.get(name, name) for name in imports_of([*MODULES, *(ROOT / "migrations").rglob("*.py")])}
    assert imported - set(OF_AN_EXTRA) == packages_of(PROJECT["project"]["dependencies"]) - set(NOT_IMPORTED)


def test_what_an_extra_brings_is_imported_in_its_own_room_alone():
    extras = PROJECT["project"]["optional-dependencies"]
    for name, (package, extra, room) in OF_AN_EXTRA.items():
        assert package in packages_of(extras[extra])
        assert [str(file.relative_to(PACKAGE)) for file in MODULES if name in imports_of([file])] == [room]


@pytest.mark.parametrize(("part", "whole"), COMES_WITH.items())
def test_what_is_said_to_come_with_a_package_does(part, whole):
    assert part.replace("_", "-") in {name_of(line) for line in requires(whole) if "extra ==" not in line}


def test_the_tests_need_nothing_that_the_test_extra_does_not_bring():
    files = sorted((ROOT / "tests").glob("*.py"))
    brought = packages_of([*PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"]["test"]])
    assert imports_of(files) - {file.stem for file in files} - set(COMES_WITH) <= brought


# --- the lock and the version ---------------------------------------------------------------------------------------


def test_the_lock_names_every_requirement_with_hashes_and_no_host():
    lock = (ROOT / "requirements.lock").read_text()
    locked = dict(re.findall(r"^([a-z0-9-]+)==\S+.*\\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", lock, re.MULTILINE))
    extras = PROJECT["project"]["optional-dependencies"]
    wanted = {
        name_of(line) for line in [*PROJECT["project"]["dependencies"], *(line for extra in extras.values() for line in extra)]
    }
    assert wanted <= set(locked)
    assert len(locked) == len(re.findall(r"^[a-z0-9-]+==", lock, re.MULTILINE))
    assert not re.search(r"://|--(extra-)?index|--find-links|\.(org|com|net|io)\b", lock)


def test_there_is_one_version():
    said = PROJECT["project"]["version"]
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert said == quota_router.__version__ == version("quota-router") == newest[1]


# --- the README says what the code does -----------------------------------------------------------------------------


def test_the_way_of_a_call_names_files_that_are_there():
    files = [PACKAGE / name for row in rows("The way of a call") for name in re.findall(r"`([^`]+\.py)`", row[2])]
    assert len(files) >= len(rows("The way of a call"))
    assert [str(file) for file in files if not file.is_file()] == []


def test_what_is_promised_is_shown_by_commands_that_are_there():
    promised = rows("What is promised")
    assert all(re.search(r"`(pytest|python) ", row[1]) for row in promised)
    named = {name for row in promised for name in re.findall(r"(?:tests|benchmarks)/\w+\.py", row[1])}
    assert {"benchmarks/kill.py", "benchmarks/reconcile.py", "benchmarks/verify.py"} < named
    assert [name for name in sorted(named) if not (ROOT / name).is_file()] == []


def test_the_gate_uses_the_command_of_the_readme():
    command = re.search(r"^python3 -m venv .*pytest$", section("Test it"), re.MULTILINE)[0]
    assert command in (ROOT / ".ci" / "run").read_text()


def test_every_path_and_no_other_is_in_the_readme():
    told = {word for title in ("Calls", "Decisions over HTTP", "Reads and probes", "Editing") for word in keys(title)}
    assert told == {f"{route.method} {route.path}" for route in all_routes()}


def test_every_command_and_no_other_is_in_the_readme():
    names = set()
    for name, command in get_command(app).commands.items():
        names |= {f"{name} {inner}" for inner in getattr(command, "commands", ())} or {name}
    assert set(keys("Commands")) == names
    shell = "\n".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL))
    assert set(re.findall(r"quota-router ((?:catalog |db |ledger |models )?[a-z]+)", shell)) <= names


def test_every_server_setting_stands_with_its_default():
    told = {re.search(r"`(\w+)`", row[0])[1]: row[1] for row in rows("`[server]`")}
    fields = shapes.ServerTable.model_fields
    assert set(told) == set(fields)
    for key, field in fields.items():
        if field.default is not None:
            said = tomllib.loads(f"default = {told[key].strip('`')}")["default"]
            assert said == (list(field.default) if isinstance(field.default, tuple) else field.default), key


@pytest.mark.parametrize(
    ("title", "tables"),
    [
        ("`[providers.NAME]`", [shapes.ProviderTable]),
        ("`[providers.NAME.answer]`", [shapes.AnswerTable]),
        ("`[[models]]`", [shapes.ModelTable, shapes.AttachmentTable]),
        ("`[[budgets]]` and `[[providers.NAME.quotas]]`", [shapes.BudgetTable]),
        ("`[[callers]]`", [shapes.CallerTable]),
        ("`[routing]`", [shapes.RoutingTable]),
        ("`[[providers.NAME.pollers]]`", [shapes.PollerTable]),
        ("`[[routing.rules]]`", [shapes.RuleTable]),
        ("`[workflows.NAME]`", [shapes.WorkflowTable, shapes.StageTable]),
    ],
)
def test_every_key_of_the_file_is_in_the_readme(title, tables):
    assert set(keys(title)) == {key for table in tables for key in table.model_fields}


def test_every_preset_is_in_the_readme():
    assert set(keys("Presets")) == set(VENDORS)
    told = {row[0].strip("`"): row[2] for row in rows("Quota endpoints")}
    assert told == {name: f"{endpoint.interval_min_s:,} s" for name, endpoint in ENDPOINTS.items()}


def test_every_dependency_has_its_reason():
    told = {row[0].strip("`").lower(): row[1] for row in rows("Dependencies")}
    assert set(told) == {name_of(requirement) for requirement in PROJECT["project"]["dependencies"]}
    assert all(told.values())
