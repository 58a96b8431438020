"""The site without building it: its programs run, nothing public is missing, every link leads somewhere."""

import csv
import doctest
import importlib
import inspect
import itertools
import math
import pkgutil
import re
import statistics
import subprocess
import types

import pmdllm
import pytest

import pmdtheory
from docs.generate import api, computed, docstrings, gallery, markdown, mathematics, references, site, snippets
from docs.generate.links import GALLERY, ROOT, THEOREMS, Links
from figures import harness
from pmdtheory.family import MEMBERS
from pmdtheory.theorems import STATEMENTS

README = (ROOT / THEOREMS).read_text()
PAGES = {path.name: path.read_text() for path in (ROOT / "docs").glob("*.md")}
PROGRAMS = [
    (name, found["code"], found["printed"]) for name in PAGES for found in snippets.PROGRAM.finditer(PAGES[name])
]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The whole source of the site, place → text."""
    folder = tmp_path_factory.mktemp("site") / "source"
    site.write(folder)
    return {"/" + str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("name", "code", "printed"), PROGRAMS, ids=lambda value: str(value).partition("\n")[0][:40])
def test_programs_print_what_stands_below_them(name, code, printed):
    assert snippets.run(code, name) == printed != ""


def test_every_question_has_a_program_and_every_member_a_line():
    for question in re.split(r"^## ", PAGES["questions.md"], flags=re.MULTILINE)[1:]:
        assert len(snippets.PROGRAM.findall(question)) == 1, question.partition("\n")[0]
    (program,) = (code for name, code, _ in PROGRAMS if name == "family.md")
    assert all(f'print("{name}", MEMBERS["{name}"]' in program for name in MEMBERS)


def test_a_program_that_prints_something_else_is_written_anew():
    page = "```python\nprint(1 + 1)\n```\n\n```text\n3\n```\n"
    assert snippets.refresh(page, "page") == page.replace("3", "2")


def modules(package):
    """Every module of a package that can be imported here."""
    yield package
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if found.name.endswith("__main__"):
            continue
        try:
            yield importlib.import_module(found.name)
        except ModuleNotFoundError as error:  # engines that are not installed
            assert error.name.partition(".")[0] in ("verl", "prime_rl"), error


@pytest.mark.parametrize("package", [pmdtheory, pmdllm], ids=lambda package: package.__name__)
def test_nothing_public_is_missing_from_the_api(package):
    """What Python itself finds in the imported modules, against what is read from the sources."""
    listed = {module.name: {*module.functions, *module.classes} for module in api.modules()}
    index, seen = api.pages()["index"], 0
    for module in modules(package):
        own = [name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
        for name in getattr(module, "__all__", None) or [name for name in own if not name.startswith("_")]:
            value = getattr(module, name)
            if inspect.isclass(value) or isinstance(value, types.FunctionType):
                assert value.__name__ in listed[value.__module__], f"{module.__name__}.{name}"
                seen += 1
        assert f"(/api/{module.__name__}.md)" in index
    assert seen > 150


def test_every_statement_has_a_page_with_its_claims_checks_and_figures():
    found = mathematics.statements()
    assert list(found) == list(map(int, re.findall(r"^### (\d+)\.", README, flags=re.MULTILINE)))
    pages = mathematics.pages()
    claims = {f"{claim.__module__}.{claim.__name__}" for entry in STATEMENTS.values() for claim in entry.claims}
    assert {name for statement in found.values() for name in statement.claims} == claims
    for number, statement in found.items():
        page = pages[str(number)]
        assert f"(/mathematics/{number}.md)" in pages["index"] and statement.line in pages["index"]
        assert statement.text.strip()[:40] in page
        assert statement.checks or statement.code, number
        assert all((ROOT / path).exists() and path in page for path in (*statement.checks, *statement.code))
        assert all(f"(#figure-{name.replace('_', '-')})" in page for name in statement.figures)
        assert set(statement.members) == {n for n, m in MEMBERS.items() if str(number) in m.statement.split(", ")}
    for label, entry in STATEMENTS.items():
        number = 16 if label.startswith("B") else int(re.match(r"\d+", label).group())
        files = {claim.__module__.rpartition(".")[2] + ".py" for claim in entry.claims}
        assert files <= {path.rpartition("/")[2] for path in found[number].checks}, label


def test_figures_lead_to_their_statements_and_back():
    """Read by hand from the figures' docstrings and the theorems' README; then both directions for all."""
    by_hand = {"population": [1, 2, 3], "recovery": [32], "inexact_evaluation": [16], "robustness": [31]}
    for name, numbers in by_hand.items():
        assert set(numbers) <= set(gallery.statements(name)), name
    found = mathematics.statements()
    for name in harness.NAMES:
        card = gallery.card(name)
        assert f"(figure-{name.replace('_', '-')})=" in card and f"output/{name}.png" in card
        said = [part for part in gallery.section(name).split("\n\n") if not part.startswith(("<", "!["))]
        assert len(said) > 3 and all(part in card for part in said)
        for number in markdown.statements(harness.module(name).__doc__):
            assert name in found[number].figures and f"(/mathematics/{number}.md)" in card


def test_names_of_figures_become_links():
    text = "as *training knob* shows, *however*, in `*family*` and **family**"
    assert gallery.link_figures(text) == text.replace("*training knob*", "[training knob](#figure-training-knob)")


def test_docstrings_become_restructuredtext():
    """Bars and statements in prose and tables; formulas, programs and code as they are."""
    lines = ["By Statement 23, |y| in `code|` and π_old_::", "", "    |y| Statement 1", ""]
    lines += [">>> abs(|y|)  # Statement 1", "", "====  ====", "|y|   Statement 1", "====  ====", ""]
    lines += [".. math:: |y|", "", "(n, *shape), as *said*", "(n, *shape)", "Notes", "-----"]
    docstrings._lines(None, "module", "m", None, {}, lines)
    assert lines[0] == r"By Statement :doc:`23 </mathematics/23>`, ∣y∣ in `code|` and π_old\_::"
    assert lines[2:5] == ["    |y| Statement 1", "", ">>> abs(|y|)  # Statement 1"]
    assert lines[7] == "∣y∣   Statement 1" and lines[10] == ".. math:: |y|"
    assert lines[12:] == ["(n, *shape), as *said*", r"(n, \*shape)", ".. rubric:: Notes", ""]


def test_the_names_of_statements_are_read_as_they_are_written():
    assert doctest.testmod(markdown).failed == 0
    linked = markdown.link_statements("`Statement 1`, Statements 2–4, [Statement 5](x), $s$", lambda w, n: f"<{n}:{w}>")
    assert linked == "`Statement 1`, Statements <2:2>–<4:4>, [Statement 5](x), $s$"


def test_links_within_the_site_lead_somewhere(source):
    places, targets = 0, set(re.findall(r"^\((figure-[\w-]+)\)=$", source["/gallery.md"].read_text(), re.MULTILINE))
    assert len(targets) == len(harness.NAMES)
    for place, path in source.items():
        if path.suffix != ".md" or place.endswith(".py.md"):
            continue
        for target in re.findall(r"\]\(([^()\s]+)\)", re.sub(r"^```.*?^```", "", path.read_text(), flags=re.M | re.S)):
            if target.startswith("/"):
                assert target.partition("#")[0] in source or target.startswith("/api/"), f"{place}: {target}"
                places += 1
            elif target.startswith("#figure-"):
                assert target[1:] in targets, f"{place}: {target}"
    assert places > 500


def test_a_link_that_leads_nowhere_is_named():
    with pytest.raises(ValueError, match=r"docs/extend.md links to ../llm/nothing.py, which is not in the repository"):
        Links().rewrite("see [this](../llm/nothing.py)", "docs/extend.md")
    with pytest.raises(ValueError, match="which is not in the repository"):
        Links().rewrite("[out](../../secret.md)", "docs/extend.md")
    text = "`[code](nowhere)` [page](engines.md) [web](https://example.org) $[x](y)$"
    assert Links().rewrite(text, "docs/extend.md") == text.replace("engines.md", "/engines.md")


def test_papers_are_cited_by_entries_that_exist():
    named = {number for text in (README, PAGES["family.md"]) for number in re.findall(r"\b\d{4}\.\d{5}\b", text)}
    entries = references.entries()
    assert named == {entry for entry in entries if entry[0].isdigit()} and len(entries) == len(set(entries))
    assert "{cite:p}`2302.11381`" in references.cite("of [JPR] and $[X]$")


def test_llms_txt_lists_the_pages_of_the_first_level(source):
    text = source["/extra/llms.txt"].read_text()
    assert {name.removesuffix(".md") for name in PAGES} <= {"index", *site.NAMES}
    toctree = re.search(r"```\{toctree\}\n:hidden:\n\n(.*?)\n```", source["/index.md"].read_text(), re.DOTALL)[1]
    for name in re.findall(r"<(.*)>", toctree):
        assert f"]({name}.html)" in text
    assert text.startswith("# pmdtheory\n\n> Policy mirror descent (PMD)")


def test_an_unknown_computed_part_is_named():
    with pytest.raises(ValueError, match="asks for 'verdict of nothing'"):
        computed.fill("<!-- computed: verdict of nothing -->", "docs/x.md")
    with pytest.raises(ValueError, match=r"docs/x.md asks for 'nothing'; computed parts are .*one step, "):
        computed.fill("<!-- computed: nothing -->", "docs/x.md")
    asked = set(re.findall(r"^<!-- computed: (.*) -->$", "".join(PAGES.values()), flags=re.MULTILINE))
    assert {name for name in asked if not name.startswith(("finding of ", "verdict of "))} == set(computed.PARTS)


def test_one_step_against_the_closed_form_of_the_kl_update():
    header, _, *rows = ([cell.strip() for cell in row.split("|")[1:-1]] for row in computed.one_step().split("\n"))
    for tau, *cells in rows:
        for name, cell in zip(header[1:], cells):
            J, grown = float(name.split("=")[1]), math.exp(1 / float(tau))
            mean, kl = map(float, cell.split("/"))
            assert kl == pytest.approx(J * grown / (1 - J + J * grown), abs=6e-4) and J < mean <= kl


def test_the_table_of_temperatures_against_the_rows_of_the_file():
    with (ROOT / "figures" / "data" / "study_temperature.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if (row["tau"], row["n"]) == ("0.02", "4")]
    expected = []
    for estimator in ("pmd-mean-loo", "pmd-part-loo"):
        own = [row for row in rows if row["estimator"] == estimator]
        below = sum(float(row["test/avg@8"]) < float(row["before/avg@8"]) for row in own)
        middle = sorted(float(row["test/avg@8"]) for row in own)[1:-1]  # five seeds without the lowest and the highest
        expected.append((f"{statistics.fmean(middle):.2f}", f"({below}/{len(own)})"))
    (line,) = (line for line in computed.temperature().split("\n") if line.startswith("| 0.02 "))
    cells = line.split("|")[2:4]
    assert [(cell.split()[0], cell.split()[-1]) for cell in cells] == expected


def test_few_rollouts_against_many_by_divisions_counted_out():
    """At each τ five seeds against five: how many of the 252 divisions have rank sums as far out; Holm's correction."""
    with (ROOT / "figures" / "data" / "study_temperature.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["estimator"] == "pmd-part-loo"]
    found = []
    for tau in {row["tau"] for row in rows}:
        own = [row for row in rows if row["tau"] == tau]
        few, many = ([float(row["test/avg@8"]) for row in own if row["n"] == n] for n in ("4", "16"))
        values = few + many
        ranks = [sum(x < y for x in values) + (values.count(y) + 1) / 2 for y in values]
        sums = [sum(some) for some in itertools.combinations(ranks, len(few))]
        own = sum(ranks[: len(few)])
        tail = min(sum(x >= own for x in sums), sum(x <= own for x in sums)) / len(sums)
        found.append((min(2 * tail, 1), own > sum(sums) / len(sums)))
    holding, higher = 0, 0
    for number, (p, up) in enumerate(sorted(found)):
        if p * (len(found) - number) >= 0.05:
            break
        holding, higher = holding + 1, higher + up
    assert f"PMD-part {higher} and {holding - higher} of {len(found)}. " in computed.few_or_many_rollouts()


def test_numbers_of_runs_are_computed_not_typed():
    """Prose of the practitioners' page counts nothing that is trained anew now and then."""
    prose = re.sub(r"```.*?```|^<!-- .* -->$", "", (ROOT / "docs" / "practitioners.md").read_text(), flags=re.M | re.S)
    number = r"(\d[\d.,]*|three|four|five|six|seven|eight|nine|ten|twelve|twenty|thirty|forty|fifty|sixty)"
    assert not re.search(rf"\b{number} (runs|seeds|regimes|cells|updates|rollouts|trials)\b", prose)


def test_the_gallery_says_where_it_comes_from():
    assert (ROOT / GALLERY).read_text().split("\n\n")[1] in gallery.page()


def test_a_folder_with_something_else_is_not_emptied(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="holds something else"):
        site.write(tmp_path)
    assert (tmp_path / "thesis.txt").exists()


def test_make_docs_replaces_what_any_earlier_version_has_made():
    """Even a source without the mark that it may be emptied."""
    target = subprocess.run(["make", "--dry-run", "docs"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert target.index("rm -rf build/site-source") < target.index("docs.generate build/site-source")
