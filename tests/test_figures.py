"""The figures' machinery and numbers: fast path from an empty folder, comparison with what is committed."""

import contextlib
import hashlib
import importlib
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pmdllm.study.declared import ON_REQUEST, STUDIES

from figures import __main__ as command
from figures import harness, replication
from pmdtheory import plotting
from tests import pictures

ROOT = Path(__file__).parent.parent


def committed(name):
    """The committed table of a figure."""
    return pd.read_csv(harness.DATA / f"{name}.csv")


@pytest.fixture(autouse=True)
def own_build(tmp_path, monkeypatch):
    """Each test writes to a folder of its own: several run at once."""
    monkeypatch.setattr(harness, "BUILD", tmp_path / "build")


@pytest.mark.parametrize("name", harness.NAMES)
def test_fast_path_agrees_with_the_committed_table(name, tmp_path):
    """From an empty folder: the reduced table is a subset of the committed one, and both pictures are drawn."""
    outcome = harness.run(name, fast=True, build=tmp_path / "empty")
    assert outcome.differences == []
    assert len(outcome.finding) > 40
    assert not [word for word in ("nan", "(?)", "inf") if word in outcome.finding.split()]
    redrawn_only = harness.inputs(harness.module(name))
    for suffix in (".png", ".svg") if redrawn_only else (".csv", ".png", ".svg"):
        assert (tmp_path / "empty" / f"{name}{suffix}").stat().st_size > 500


@pytest.mark.parametrize("name", harness.NAMES)
def test_committed_files_are_there_and_shown(name):
    """Tables, both pictures and an entry in the gallery."""
    tables = harness.inputs(harness.module(name)) or [harness.DATA / f"{name}.csv"]
    assert all(table.exists() for table in tables)
    assert (harness.OUTPUT / f"{name}.png").exists()
    assert "<svg" in (harness.OUTPUT / f"{name}.svg").read_text()
    assert f"output/{name}.png" in (ROOT / "figures" / "README.md").read_text()


@pytest.mark.parametrize("name", harness.NAMES)
def test_pictures_are_read_without_their_caption(name):
    """At most six panels, none empty, each with a title in words; the message fits; nothing is cut off or covered."""
    figure = harness.module(name)
    tables = harness.committed(figure)
    with plotting.style():
        drawn = figure.plot(*tables)
        picture = harness.draw(figure, tables)
        wrong = pictures.faults(picture)
    assert len(drawn.axes) == len(picture.axes)
    panels = [axis for axis in picture.axes if axis.axison and axis.get_label() != "<colorbar>"]
    assert len(panels) <= 6
    assert len(panels) == 1 or all(len(axis.get_title()) > 3 and axis.get_title(loc="left") for axis in panels)
    assert wrong == []
    plotting.plt.close("all")


@pytest.mark.parametrize("name", harness.NAMES)
def test_messages_and_findings_are_short(name):
    """At most 90 words, of which a sentence is shown; a message that fits two lines."""
    figure = harness.module(name)
    tables = harness.committed(figure)
    finding, message = figure.finding(*tables), harness.title(figure, tables)
    assert len(finding.split()) <= 90
    assert len(finding.partition(". ")[0].split()) <= 45
    assert len(message) <= 150 and "(Statement" not in message
    assert len(harness.caption(figure)) > 100


def test_faults_of_a_layout_are_found():
    """Text beyond the edge, text on text, and a legend on a curve; none in a picture without them."""
    with plotting.style():
        picture, (axis,) = plotting.panels(1, 1)
        axis.plot([0, 1], [0, 1], marker="o")
        plotting.headline(picture, "A line that rises")
        assert pictures.faults(picture) == []
        axis.plot([0, 0.5, 1], [0, 1, 0], label="rise")
        axis.legend(loc="upper center")
        axis.text(0.1, 0.5, "first")
        axis.text(0.11, 0.5, "second")
        picture.text(0.99, 0.5, "beyond the edge", in_layout=False)
        found = " ".join(pictures.faults(picture))
    assert "'beyond the edge' leaves" in found and "'first' overlaps 'second'" in found and "line 'rise'" in found
    plotting.plt.close(picture)


def test_a_message_is_wrapped_to_the_width_of_its_picture():
    """Lines of a long message lie within a narrow picture; the figure grows by them."""
    with plotting.style():
        picture, _ = plotting.panels(1, 1, width=4.0)
        height = picture.get_figheight()
        plotting.headline(picture, "A message of many words that say what is seen in a picture, one after the other")
        assert pictures.faults(picture) == []
    assert picture.get_figheight() > height
    plotting.plt.close(picture)


def test_text_of_an_svg_can_be_selected(tmp_path):
    """Words are text elements, not outlines."""
    with plotting.style():
        picture, (axis,) = plotting.panels(1, 1)
        axis.set_xlabel("rollouts a batch")
        plotting.save(picture, tmp_path / "picture")
    text = (tmp_path / "picture.svg").read_text()
    assert ">rollouts a batch</text>" in text and "'DejaVu Sans', Verdana, sans-serif" in text


def test_a_panel_without_data_is_removed_and_the_others_lettered_anew():
    """Bounds alone are no data."""
    with plotting.style():
        figure, axes = plotting.panels(1, 3)
        axes[0].axhline(1)
        axes[1].plot([], [], label="nothing")
        axes[2].plot([0, 1], [0, 1])
        plotting.drop_empty(figure)
    assert [axis.get_title(loc="left") for axis in figure.axes] == [""]
    assert figure.axes[0].lines[0].get_xdata() == pytest.approx([0, 1])
    plotting.plt.close(figure)


def test_methods_keep_their_colour():
    """All methods of the table are told apart, leave-one-out by line style only; unknown names have a stable look."""
    looks = plotting.METHODS
    plain = [style["color"] for name, style in looks.items() if not name.endswith("-loo")]
    assert len(set(plain)) == len(plain)
    for name in ("pmd-mean", "pmd-part"):
        assert looks[name]["color"] == looks[f"{name}-loo"]["color"]
        assert looks[name]["linestyle"] != looks[f"{name}-loo"]["linestyle"]
    code = "from pmdtheory.plotting import method; print(method('mine'))"
    said = {subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True).stdout for _ in "ab"}
    assert said == {f"{plotting.method('mine')}\n"}
    assert plotting.method("mine")["color"] not in {style["color"] for style in looks.values()}


def test_figures_need_no_pytorch():
    """`make reproduce` installs the theory part alone."""
    code = "import sys; from figures import harness as h; print(len(h.gallery()), {'torch', 'pmdllm'} & {*sys.modules})"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    length, _, imported = run.stdout.partition(" ")
    assert int(length) > 10_000 and imported.strip() == "set()", run.stderr


def test_two_runs_are_identical(tmp_path):
    """Same table and SVG, byte for byte."""
    digests = []
    for run in ("first", "second"):
        harness.run("baseline_knob", fast=True, build=tmp_path / run)
        files = [tmp_path / run / f"baseline_knob{suffix}" for suffix in (".csv", ".svg", ".png")]
        digests.append([hashlib.sha256(file.read_bytes()).hexdigest() for file in files])
    assert digests[0] == digests[1]


def test_comparison_names_what_differs(tmp_path):
    """Changed, new and missing rows are told apart; a relative 1e-10 passes, 1e-9 does not."""
    table = pd.DataFrame({"key": ["a", "b", "c"], "value": [1.0, 2.0, 3.0], "note": ["x", "y", "z"]})
    old, new = tmp_path / "old.csv", tmp_path / "new.csv"
    table.to_csv(old, index=False)

    def differences(changed, subset=False, tolerance=None):
        changed.to_csv(new, index=False, float_format="%.17g")
        return harness.compare(new, old, ["key"], tolerance or {}, subset)

    assert differences(table) == []
    assert differences(table.assign(value=table.value * (1 + 5e-11))) == []
    (row,) = differences(table.assign(value=[1.0, 2.0 * (1 + 1e-9), 3.0]))
    assert row.startswith("row key=b: value is 2.000000002, committed 2.0")
    assert differences(table.assign(value=table.value * (1 + 1e-9)), tolerance={"value": 1e-8}) == []
    assert differences(table.assign(note=["x", "y", "w"])) == ["row key=c: note is w, committed z"]
    assert differences(table.assign(value=[1.0, np.nan, 3.0])) == ["row key=b: value is nan, committed 2.0"]
    assert differences(table[:2]) == ["row key=c is missing"]
    assert differences(table[:2], subset=True) == []
    assert differences(table.assign(key=["a", "b", "d"]), subset=True) == ["row key=d is new"]
    assert differences(table.rename(columns={"value": "other"}))[0].startswith("columns")
    assert differences(table.assign(key=["a", "a", "c"])) == ["the recomputed table repeats row a"]
    assert harness.compare(new, tmp_path / "none.csv", ["key"], {}, False)[0].startswith("none.csv is not committed")
    pd.DataFrame({"foreign": [1]}).to_csv(old, index=False)
    assert differences(table)[0].startswith("columns")


def test_a_departure_fails_the_command(tmp_path, monkeypatch, capsys):
    """Exit code 1 and the row named, when a committed number is not what comes out."""
    data = tmp_path / "data"
    data.mkdir()
    table = committed("zero_temperature")
    table.loc[3, "policy"] += 1e-6
    table.to_csv(data / "zero_temperature.csv", index=False, float_format="%.12g")
    monkeypatch.setattr(harness, "DATA", data)
    monkeypatch.setattr(harness, "BUILD", harness.HERE.parent / "build" / "test-departure")
    assert command.main(["zero_temperature"]) == 1
    out = capsys.readouterr().out
    assert "DIFFERS: row update=kl, tau=0.0001, action=3: policy" in out
    assert "1 of 1 tables differ" in out


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """A copy of the committed files in which runs may write."""
    here = tmp_path / "figures"
    for folder in ("data", "output"):
        shutil.copytree(harness.HERE / folder, here / folder)
    (tmp_path / "docs").mkdir()
    for page in (here / "README.md", tmp_path / "README.md", tmp_path / "docs" / "findings.md"):
        shutil.copyfile(ROOT / page.relative_to(tmp_path), page)
    monkeypatch.setattr(replication, "README", tmp_path / "README.md")
    monkeypatch.setattr(replication, "FINDINGS", tmp_path / "docs" / "findings.md")
    monkeypatch.setattr(harness, "HERE", here)
    for name, folder in (("DATA", here / "data"), ("OUTPUT", here / "output"), ("BUILD", tmp_path / "build")):
        monkeypatch.setattr(harness, name, folder)
    return here


def test_pages_out_of_date_are_a_difference_and_updated(folders, monkeypatch, capsys):
    """A plain run names the page and ends with 1; an update writes all pages, whichever figure it was of."""
    monkeypatch.setattr(harness, "NAMES", ("training_seeds",))
    (folders / "README.md").write_text(harness.gallery())
    pages = folders.parent / "README.md", folders.parent / "docs" / "findings.md"
    present = [page.read_text() for page in pages]
    for page, text in zip(pages, present):
        page.write_text(text.replace("--update -->\n", "--update -->\nIt holds everywhere.\n", 1))
    assert command.main([]) == 1
    printed = capsys.readouterr().out
    assert all(f"DIFFERS: {name} is not what the" in printed for name in ("README.md", "docs/findings.md"))
    (folders / "README.md").write_text("old")
    assert command.main(["training_seeds", "--update"]) == 0
    assert [page.read_text() for page in pages] == present
    assert (folders / "README.md").read_text() == harness.gallery()
    assert command.main([]) == 0


FILES = ("data/zero_temperature.csv", "output/zero_temperature.png", "output/zero_temperature.svg")


def made_anew(path):
    """The text of a table that this machine computes: last digits are those of its arithmetic, not the committed ones.

    The relative accuracy of a probability of e^−168 is 168 roundings.
    """
    path.write_text(path.read_text().partition("\n")[0] + "\n")
    harness.run(path.stem, update=True)
    return path.read_text()


def test_a_sample_is_recomputed_unless_the_table_is_to_be_replaced(folders, monkeypatch):
    """A part of the rows agrees with the committed table; a replaced table is whole."""
    figure = harness.module("zero_temperature")
    monkeypatch.setattr(figure, "SAMPLE", figure.FAST, raising=False)
    path, build = folders / "data" / "zero_temperature.csv", folders.parent / "build" / "zero_temperature.csv"
    assert harness.run("zero_temperature", build=build.parent).differences == []
    assert 0 < len(pd.read_csv(build)) < len(pd.read_csv(path))
    whole = len(pd.read_csv(path))
    text = made_anew(path)
    assert len(pd.read_csv(path)) == whole
    path.write_text(text.partition("\n")[0] + "\n")
    harness.run("zero_temperature", update=True, build=build.parent)
    assert path.read_text() == text


@pytest.mark.parametrize("moved", range(5))
def test_an_update_that_is_killed_leaves_the_old_files_or_the_new(folders, monkeypatch, moved):
    """Killed before the folder is renamed: all old; after it, at any file: all new once the next run has begun."""

    class Killed(BaseException):
        pass

    def read():
        return [(folders / file).read_bytes() for file in FILES]

    new = {folders / file: folders / f"new{i}" for i, file in enumerate(FILES)}
    for path in new.values():
        path.write_bytes(path.name.encode())
    old, calls = read(), []
    rename, replace = Path.rename, Path.replace

    def killed(function):
        def call(*arguments):
            calls.append(arguments)
            if len(calls) > moved:
                raise Killed
            return function(*arguments)

        return call

    monkeypatch.setattr(Path, "rename", killed(rename))
    monkeypatch.setattr(Path, "replace", killed(replace))
    with pytest.raises(Killed) if moved < 4 else contextlib.nullcontext():
        harness.publish("zero_temperature", new)
    monkeypatch.setattr(Path, "rename", rename)
    monkeypatch.setattr(Path, "replace", replace)
    harness.finish()
    assert read() == (old if moved == 0 else [path.read_bytes() for path in new.values()])
    assert not [path for path in folders.iterdir() if path.name.startswith(".")]


def test_a_table_that_agrees_stays_as_it_is_to_the_byte(folders):
    """Last digits that an update could write anew are kept, a departure is replaced."""
    path = folders / "data" / "zero_temperature.csv"
    text = made_anew(path)
    path.write_text(text.replace("0.240000000000", "0.24000000000000001").replace("0.24,", "0.24000000000001,"))
    before = path.read_bytes()
    assert harness.run("zero_temperature", update=True).differences == []
    assert path.read_bytes() == before
    path.write_text(text.replace("0.24,", "0.25,"))
    assert harness.run("zero_temperature", update=True).differences == []
    assert path.read_text() == text


@pytest.mark.parametrize(
    ("name", "table", "content", "message"),
    [
        ("zero_temperature", "zero_temperature", b"", "cannot be read as a table"),
        ("zero_temperature", "zero_temperature", b"\xff\xfe\x00", "cannot be read as a table"),
        ("training_seeds", "study_seeds", b"a,b\n1,2\n", "has no column 'base'"),
        (
            "training_seeds", "study_seeds",
            b"base,seed,seconds,before/avg@8,before/greedy,test/avg@8,test/greedy\n", "holds no row yet",
        ),
        ("training_seeds", "study_seeds_curves", b'a,"b\n1', "cannot be read as a table"),
        (
            "training_seeds", "study_seeds_curves",
            b"base,seed,iteration,validation/avg@8,validation/greedy\nsecond,0,many,1,1\n",
            "column iteration must hold numbers, got 'many'",
        ),
    ],
)  # fmt: skip
def test_a_foreign_or_damaged_table_is_one_line(folders, name, table, content, message, capsys):
    (folders / "data" / f"{table}.csv").write_bytes(content)
    assert command.main([name]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
    assert message in line
    assert f"figures/data/{table}.csv" in line


def test_a_fault_of_a_figure_shows_where_it_arose(folders, monkeypatch, capsys):
    """The whole traceback, and no word about tables that agree."""
    monkeypatch.setattr(harness.module("zero_temperature"), "compute", lambda **_: {}["missing"])
    assert command.main(["zero_temperature"]) == 2
    out, err = capsys.readouterr()
    assert "Traceback" in err and "KeyError: 'missing'" in err and "test_figures.py" in err
    assert "agree" not in out


def test_output_that_cannot_be_written_is_one_line_before_anything_is_computed(folders, monkeypatch, capsys):
    """A file where the folder should be."""
    monkeypatch.setattr(harness, "BUILD", folders / "README.md" / "build")
    monkeypatch.setattr(harness, "run", None)
    assert command.main(["zero_temperature"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "README.md" in line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nonsense"], "no figure is called 'nonsense'"),
        (["--fast", "--update"], "cannot --update"),
        (["--jobs", "0"], "--jobs must be at least 1"),
    ],
)
def test_bad_command_lines(words, message, capsys):
    """One clear line, exit code 2."""
    with pytest.raises(SystemExit) as stop:
        command.main(words)
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_help():
    """The command explains itself and lists the figures."""
    out = subprocess.run([sys.executable, "-m", "figures", "--help"], cwd=ROOT, capture_output=True, text=True).stdout
    assert all(name in out for name in harness.NAMES)


STUDY_FIGURES = tuple(name for name in harness.NAMES if name.startswith("training_"))


WHEN, KINDS = ("before", "test"), ("seen", "unseen")


def study_tables(name, seeds=range(5)):
    """Tables as a study writes them, with PMD-part below the base where τ < 0.5: results, curves, tuning."""
    rng = np.random.default_rng(0)
    results, curves, tuning = [], [], []
    k = {"pretrained": 4, "sums": 16, "word_problems": 4}.get(name, 8)
    for seed in seeds:
        for setting in (STUDIES | ON_REQUEST)[name].settings:
            options = {"tau": 1.0, "algorithm": "pmd-mean-loo"} | setting.options | setting.trials[0]
            row = setting.columns | {"tau": options["tau"], "seed": seed, "trials": 8, "seconds": 60.0}
            row |= {"learning_rate": 6e-4} | {name: options.get(name) for name in ("clip_low", "target_kl")}
            collapses = "part" in options["algorithm"] and options["tau"] < 0.5
            end = (0.1 if collapses else 0.9) + rng.uniform(-0.03, 0.03)
            row |= {f"before/avg@{k}": 0.29, "before/greedy": 0.35, f"test/avg@{k}": end, "test/greedy": end + 0.05}
            row |= {f"{when}/{kind}/avg@{k}": row[f"{when}/avg@{k}"] for when, kind in product(WHEN, KINDS)}
            results.append(row)
            tuning.append(row)
            for i in range(0, 61, 10):
                line = {"reward": end, "length": 12.0, "entropy": 0.3, "log_ratio/std": 0.5} if i else {}
                line |= {} if "tau" in setting.columns else {"tau": None}
                line |= {"iteration": i, "tokens": 100.0 * i, "cpu_seconds": float(i), "seconds": i}
                kinds = (f"avg@{k}", f"pass@{k}", f"maj@{k}", "greedy")
                line |= {f"validation/{kind}": 0.3 + (end - 0.3) * i / 60 for kind in kinds}
                curves.append(setting.columns | {"seed": seed, "iteration": i} | line)
    return pd.DataFrame(results), pd.DataFrame(curves), pd.DataFrame(tuning)


@pytest.mark.parametrize("name", STUDY_FIGURES)
def test_study_figures_are_redrawn_only(name, tmp_path, monkeypatch):
    """From committed tables, whole or only begun; the tables stay as they are, the gallery says how they were made."""
    monkeypatch.setattr(harness, "NAMES", (name,))
    for folder in ("DATA", "OUTPUT", "HERE"):
        monkeypatch.setattr(harness, folder, tmp_path / folder)
        (tmp_path / folder).mkdir()
    figure = harness.module(name)
    for begun in (False, True):
        for path, table in zip(harness.inputs(figure), study_tables(figure.STUDY, range(1 if begun else 5))):
            some = table if not begun else table[table.iloc[:, 0] == table.iloc[0, 0]]
            some.to_csv(path, index=False)
        before = [path.read_bytes() for path in harness.inputs(figure)]
        outcome = harness.run(name, update=True, build=tmp_path / "build")
        assert outcome.differences == []
        assert "nan" not in outcome.finding
        assert [path.read_bytes() for path in harness.inputs(figure)] == before
        assert (tmp_path / "OUTPUT" / f"{name}.svg").stat().st_size > 5000
        text = harness.gallery()
        assert f"make study NAMES={figure.STUDY}" in text
        assert all(f"data/{table}.csv" in text for table in figure.TABLES)


def test_study_findings():
    """Counts and orderings that the tables were made to have."""
    figures = {name: importlib.import_module(f"figures.{name}") for name in STUDY_FIGURES}
    found = {
        name: figure.finding(*study_tables(figure.STUDY)[: len(figure.TABLES)]) for name, figure in figures.items()
    }
    assert found["training_seeds"].count("5/5 seeds") == 2
    assert "below the base: PMD-mean 0/40, PMD-part 30/40" in found["training_temperature"]
    assert "PMD-part τ = 0.1" in found["training_methods"].partition(". Test avg@8")[0]
    assert "PMD-part 15/15" in found["training_staleness"]
    assert "no knob" in found["training_knob"].partition("the better of the two fixed ones")[2].partition(".")[0]
    assert found["training_pretrained"].startswith("Test avg@4 from 0.29: ")
    assert found["training_sums"].startswith("Test avg@16 from 0.29 to 0.89 ")
    assert "PMD-mean 0.6" in found["training_word_problems"]


def test_study_messages():
    """Verdicts in the titles follow from the tables, whole or begun."""
    figures = {name: harness.module(name) for name in STUDY_FIGURES}
    said = {
        name: harness.title(figure, study_tables(figure.STUDY)[: len(figure.TABLES)])
        for name, figure in figures.items()
    }
    assert said["training_seeds"].startswith("In 10 of 10 runs, from 2 bases,")
    assert "PMD-mean 40 of 40, with PMD-part 10 of 40" in said["training_temperature"]
    assert said["training_temperature"].endswith("none at τ > 0.1 ends below")
    assert "no knob ends clearly above" in said["training_knob"]
    assert "1 of 6 methods can be told from the best" in said["training_methods"]
    results, curves, _ = study_tables("sums")
    assert "from 29% to above 95% of held-out sums in 0 of 5 seeds" in said["training_sums"]
    three = results.assign(**{"test/avg@16": np.where(results.seed < 3, 0.951, 0.95), "test/greedy": 1.0})
    assert "sums in 3 of 5 seeds, greedily in 5" in harness.title(figures["training_sums"], (three, curves))
    assert "PMD-mean in 5 of 5 seeds, GRPO in 5 of 5" in said["training_word_problems"]
    results, curves, _ = study_tables("word_problems")
    two = results.assign(**{"test/avg@4": results["before/avg@4"] + np.where(results.seed < 2, 0.26, 0.24)})
    assert "PMD-mean in 2 of 5 seeds" in harness.title(figures["training_word_problems"], (two, curves))
    results, *others = study_tables("knob")
    lifted = results.assign(**{"test/avg@8": results["test/avg@8"] + 0.09 * (results.knob == "annealed-tau")})
    assert "annealed τ ends clearly above" in harness.title(figures["training_knob"], (lifted, others[0]))
    results, *others = study_tables("staleness")
    led = results.assign(**{"test/avg@8": results["test/avg@8"] + (results.method == "pmd-mean-loo")})
    table = pd.concat([led, led.assign(seed=led.seed + 5)])  # ten seeds: five cannot be told apart in 17 comparisons
    message = harness.title(figures["training_staleness"], (table, *others))
    drawn = led[led.method.isin(figures["training_staleness"].METHODS)]  # without relatives of PMD-mean
    regimes = drawn.groupby(["budget", "updates_per_batch", "lag"]).method.nunique()
    count = (regimes - 1).sum()
    assert message.startswith(f"In {len(regimes)} regimes")
    assert message.endswith(f"in {count} of {count} comparisons, below in 0")


def test_an_unfinished_study_says_what_is_missing():
    """Five methods, five seeds and four trials on one tuning seed, with U = 4 and 16: 90 runs."""
    figure, study = harness.module("training_pretrained"), ON_REQUEST["pretrained"]
    runs = [len(study.seeds) + len(setting.trials) * len(study.tuning_seeds) for setting in study.settings]
    assert runs == [figure.SEEDS + figure.TRIALS] * len(figure.METHODS) * len(figure.UPDATES)
    results, curves, tuning = study_tables("pretrained")
    assert figure.missing(results, tuning)[2] == {}
    assert "study" not in harness.title(figure, (results, curves, tuning))
    some = results[(results.updates_per_batch == 4) | (results.seed < 2)]
    words = figure.finding(some, curves, tuning[tuning.updates_per_batch == 4])
    assert words.startswith("Missing are 35 of the 90 runs of the study, tuning included: 35 of 45 with U = 16. ")
    message = harness.title(figure, (some, curves, tuning[tuning.updates_per_batch == 4]))
    assert message.endswith("(55 of 90 runs of the study are there)")


@pytest.mark.parametrize("name", [name for name in harness.NAMES if harness.inputs(harness.module(name))])
def test_methods_that_no_figure_knows_do_not_stop_it(name):
    """A study may grow: rows of another method are named as their table names them, or left out."""
    figure = harness.module(name)
    tables = harness.committed(figure)
    for table in tables:
        for column in {"method", "estimator", "knob", "base", "algorithm"} & set(table):
            table[column] = table[column].where(table.index % 2 == 0, "mine")
    with plotting.style():
        plotting.plt.close(figure.plot(*tables))
    assert len(figure.finding(*tables)) > 40


def test_messages_of_the_titles_hold():
    """What titles of figures claim of committed runs, from the tables."""
    cases = committed("three_cases")
    assert cases.dumped[cases.estimator == "mean"].sum() == 0 < cases.dumped[cases.estimator == "log_partition"].sum()
    runs = committed("study_temperature")
    ends = runs.groupby(["estimator", "tau", "n"])["test/avg@8"].mean()
    assert ends["pmd-mean-loo"].min() > 0.9
    assert ends["pmd-part-loo"][0.5].min() > 0.9 > 0.7 > ends["pmd-part-loo"][0.02].max()
    assert (ends["pmd-part-loo"].unstack("n")[16] < ends["pmd-part-loo"].unstack("n")[4]).all()
    stale = committed("study_staleness")
    regimes = stale[stale.lag == 0].groupby(["budget", "updates_per_batch", "method"])["test/avg@8"].mean()
    assert regimes.unstack("method").idxmax(axis=1).nunique() > 1
    assert "no knob" in importlib.import_module("figures.training_knob").finding(
        committed("study_knob"), committed("study_knob_curves")
    )
    better = importlib.import_module("figures.better_knob").leads(committed("better_knob")).set_index("knob")
    assert (better.lead["measuring"].abs() <= np.maximum(better.half["measuring"], 0.5)).all()
    assert (better.lead["target-KL"] <= np.maximum(better.half["target-KL"], 0.5)).all()
    assert (better.lead["annealed"] > np.maximum(better.half["annealed"], 0.5)).sum() == 3


def test_population_markers_lie_on_the_curves():
    """CVXPY against the closed forms: weighted by p, and PMD-mean spreads its log-ratios less (Statement 7)."""
    table = committed("population")
    q = table.policy * np.exp(table.log_ratio)
    keys = [table[k] for k in ("mean_reward", "tau", "update")]
    for column in ("cvxpy_subproblem", "cvxpy_regression"):
        distance = (table.policy * np.exp(table[column]) - q).abs().groupby(keys).sum()
        assert distance.max() < 1e-5
    assert q.groupby(keys).sum().to_numpy() == pytest.approx(1, abs=1e-9)
    spread = table.groupby(["mean_reward", "tau", "update"]).log_ratio.agg(np.ptp).unstack()
    assert (spread["mean"] < spread["kl"]).all()


def test_adaptive_weight_numbers():
    """λ = KL(p‖q) ≤ sd/2 everywhere, and τλ tends to J(1 − J)."""
    table = committed("adaptive_weight")
    assert table.chi2_weight.to_numpy() == pytest.approx(table.reverse_kl.to_numpy(), rel=1e-9)
    assert (table.chi2_weight <= table.bound * (1 + 1e-9)).all()
    binary = table[table.problem == "binary"]
    gap = (binary.tau * binary.chi2_weight - binary.mean_reward * (1 - binary.mean_reward)).abs()
    assert gap.groupby(binary.tau).max().is_monotonic_increasing
    assert gap[binary.tau == 0.01].max() < 0.01


def test_conservatism_numbers():
    """Both bounds of Statement 9; KL's small-J form is an upper bound; PMD-mean leaves more failures."""
    table = committed("conservatism")
    assert (table.mean_factor_low * (1 - 1e-9) <= table.mean_factor).all()
    assert (table.mean_factor <= table.mean_factor_high * (1 + 1e-9)).all()
    assert (table.kl_factor <= table.kl_factor_small * (1 + 1e-9)).all()
    assert (table.mean_factor >= table.kl_factor * (1 - 1e-9)).all()


def test_baseline_knob_numbers():
    """Statement 10: reward, KL and χ² rise and λ falls with b; λ < 0 exactly where marked local."""
    table = committed("baseline_knob").sort_values(["tau", "baseline"])
    convex = table[~table.local].groupby("tau")
    for column in ("reward", "kl", "chi2"):
        assert (convex[column].diff().dropna() > 0).all()
    assert (convex.tau_weight.diff().dropna() < 0).all()
    assert ((table.tau_weight < 0) == table.local).all()


def test_zero_temperature_numbers():
    """Distance to the limits: KL's vanishes exponentially, PMD-mean's at most like τ log(1/τ) (Statement 8)."""
    table = committed("zero_temperature")
    for update, rate in (("kl", 1e-12), ("mean", 5.0)):
        policy = table[table["update"] == update].pivot(index="tau", columns="action", values="policy")
        distance = (policy - policy.loc[0.0]).abs().sum(axis=1).drop(0.0)
        cold = distance[distance.index < 2e-3]
        assert (cold <= rate * cold.index * np.log(1 / cold.index) + 1e-12).all()
    limit = table[(table["update"] == "mean") & (table.tau == 0)]
    assert (limit.policy > 0).sum() > 1


def test_bandit_convergence_numbers():
    """Every bound holds, PMD-mean is never ahead of KL at the same step."""
    table = committed("bandit_convergence")
    assert (table.gap <= table.bound * (1 + 1e-9)).all()
    inside = table.dropna(subset=["step_low"])
    assert (inside.gap >= inside.step_low * (1 - 1e-9)).all()
    assert (inside.gap <= inside.step_high * (1 + 1e-9)).all()
    wide = table.pivot(index=["rewards", "tau", "step"], columns="update", values="gap").dropna()
    assert (wide["mean"] >= wide["kl"] * (1 - 1e-9)).all()


def test_log_partition_laboratory_numbers():
    """Statement 12: the mean is unbiased with variance J(1−J)/(nτ²); the log-partition's far mode and its weight."""
    table = committed("log_partition_laboratory")
    for name, fewer in (("mean", 0), ("loo_mean", 1)):
        rows = table[table.sweep.isin(["rollouts", "success", "tau"]) & (table.estimator == name)]
        assert rows.bias.abs().max() < 1e-9
        sd = np.sqrt(rows.success * (1 - rows.success) / (rows.rollouts - fewer)) / rows.tau
        assert rows.sd.to_numpy() == pytest.approx(sd.to_numpy(), rel=1e-9)
    law = table[(table.sweep == "law") & (table.estimator == "log_partition")].set_index("count")
    assert law.probability[0] == pytest.approx(0.9**16)
    assert law.error[0] == pytest.approx(-np.log(1 + 0.1 * np.expm1(10)))
    partition = table[table.estimator == "log_partition"].dropna(subset=["bias"])
    assert (partition.bias < 0).all()
    clamp = table[table.sweep == "clamp"]
    assert clamp.advantage.to_numpy() == pytest.approx(1)
    assert clamp.advantage_clamped.iloc[0] == pytest.approx(0.184, abs=5e-4)
