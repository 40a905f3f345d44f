#!/usr/bin/env python3
"""bench/report.py: one clear error for a bad file, the right verdicts for samples that are known."""
import contextlib
import copy
import io
import json
import os
import random
import sys
import tempfile
import unittest
import xml.dom.minidom

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), ".."))
import report  # noqa: E402


def series(name, ours, base, unit="us"):
    return {"name": name, "unit": unit, "against": "floor", "ours": ours, "base": base}


def part(*of, layout="one-core", program="wvmbench fault", counts=None):
    return {"program": program, "layout": layout, "series": list(of), "counts": counts or {}}


def result(*parts):
    return {"format": 1, "machine": {"cpu": "c", "cores": 2, "kernel": "k", "ram_kib": 1}, "parts": list(parts)}


def noisy(center, n=9, seed=7):
    rng = random.Random(seed)
    return [center * rng.uniform(0.98, 1.02) for _ in range(n)]


class Files(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def file(self, name, content):
        path = os.path.join(self.folder, name)
        with open(path, "w", encoding="utf-8") as f:
            f.write(content if isinstance(content, str) else json.dumps(content))
        return path

    def run_report(self, *argv):
        """(status, standard output, standard error)"""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = report.main(list(argv))
        return status, out.getvalue(), err.getvalue()

    def compare(self, old, new):
        return self.run_report("compare", self.file("old", old), self.file("new", new))


class BadFiles(Files):
    GOOD = result(part(series("remote-read", [1.0, 2.0], [1.0, 1.0]), counts={"mib": 1}))

    def change(self, edit):
        broken = copy.deepcopy(self.GOOD)
        edit(broken)
        return broken

    def refused(self, content, text):
        path = self.file("bad", content)
        for argv in (("compare", path, self.file("good", self.GOOD)), ("compare", self.file("good", self.GOOD), path)):
            status, out, err = self.run_report(*argv)
            self.assertEqual(status, 1)
            self.assertEqual(err.count("\n"), 1, err)
            self.assertIn(path, err)
            self.assertIn(text, err)
            self.assertEqual(out, "")

    def test_what_is_not_json(self):
        for content in ("", "{", "\0", "[" * 100000):
            self.refused(content, "not JSON")

    def test_what_is_no_result(self):
        for content in ("[]", "1", "null", "{}", '{"format": 2}', '{"format": "1"}'):
            self.refused(content, "format 1")
        self.refused({"format": 1}, "missing")
        self.refused({"format": 1, "machine": {}, "parts": {}}, "missing")

    def test_parts_that_are_broken(self):
        def edits():
            def first(r):
                return r["parts"][0]["series"][0]

            yield lambda r: r["parts"].append(3), "not the result"
            yield lambda r: r["parts"][0].pop("program"), "'program'"
            yield lambda r: r["parts"][0].pop("layout"), "'layout'"
            yield lambda r: r["parts"][0].update(series={}), "'series'"
            yield lambda r: first(r).pop("name"), "'name'"
            yield lambda r: first(r).update(unit=5), "'unit'"
            yield lambda r: first(r).pop("ours"), "'ours'"
            yield lambda r: first(r).update(base=[]), "'base'"
            yield lambda r: first(r).update(base=[1.0, "2"]), "'base'"
            yield lambda r: first(r).update(base=[1.0, 0]), "'base'"
            yield lambda r: first(r).update(ours=[1.0, float("nan")]), "'ours'"
            yield lambda r: first(r).update(ours=[1.0, True]), "'ours'"
            yield lambda r: first(r).update(ours=[1.0]), "same number of rounds"
            yield lambda r: r["parts"][0].update(counts={"a": "b"}), "'counts'"
            yield lambda r: r["parts"][0].update(counts=[]), "'counts'"

        for edit, said in edits():
            self.refused(self.change(edit), said)

    def test_a_file_that_is_not_there(self):
        status, _, err = self.run_report("compare", os.path.join(self.folder, "none"), self.file("a", self.GOOD))
        self.assertEqual((status, err.count("\n")), (1, 1))
        self.assertIn("No such file", err)

    def test_results_without_a_common_figure(self):
        other = result(part(series("other", [1.0], [1.0])))
        status, _, err = self.compare(self.GOOD, other)
        self.assertEqual(status, 1)
        self.assertIn("no figure in common", err)

    def test_the_usage_for_anything_else(self):
        for argv in ((), ("compare", "a"), ("write", "a"), ("draw", "a", "b")):
            self.assertEqual(self.run_report(*argv)[0], 2)


class Verdicts(Files):
    def line(self, figure, old, new, unit="us", base=1.0):
        """What is said of a figure whose ratios changed from old to new."""
        a = result(part(series(figure, [x * base for x in old], [base] * len(old), unit)))
        b = result(part(series(figure, new, [1.0] * len(new), unit)))
        status, out, err = self.compare(a, b)
        self.assertEqual((status, err), (0, ""))
        return next(x for x in out.splitlines() if x.startswith(figure))

    def test_less_time_is_faster_and_more_is_slower(self):
        self.assertTrue(self.line("zero-page", noisy(2), noisy(1)).endswith("faster"))
        self.assertTrue(self.line("zero-page", noisy(1), noisy(2)).endswith("slower"))
        self.assertTrue(self.line("guest-boot", noisy(2), noisy(1), "s").endswith("faster"))

    def test_a_higher_rate_is_faster_and_a_lower_one_slower(self):
        self.assertTrue(self.line("first-touch", noisy(1), noisy(2), "MiB/s").endswith("faster"))
        self.assertTrue(self.line("rate-8-threads", noisy(2), noisy(1), "faults/s").endswith("slower"))
        self.assertTrue(self.line("something-new", noisy(2), noisy(1), "MiB/s").endswith("slower"))

    def test_noise_is_no_difference(self):
        for seed in range(1, 20):
            self.assertTrue(
                self.line("zero-page", noisy(1, seed=seed), noisy(1.001, seed=seed + 100)).endswith(
                    "no difference shown"))

    def test_the_same_is_no_difference_and_its_interval_holds_1(self):
        line = self.line("zero-page", noisy(3), noisy(3))
        self.assertTrue(line.endswith("no difference shown"))
        low, high = (float(x) for x in line[line.index("[") + 1:line.index("]")].split(","))
        self.assertTrue(low <= 1 <= high)

    def test_a_wide_spread_hides_what_a_narrow_one_shows(self):
        wide = [0.5, 0.7, 1.0, 1.5, 2.0]
        self.assertTrue(self.line("zero-page", wide, [x * 1.1 for x in wide]).endswith("no difference shown"))
        self.assertTrue(self.line("zero-page", noisy(1), noisy(1.1)).endswith("slower"))

    def test_the_partner_takes_the_machines_speed_out(self):
        """Everything three times slower, the partner too: nothing has changed."""
        self.assertTrue(self.line("zero-page", noisy(2), noisy(2), base=3.0).endswith("no difference shown"))

    def test_too_few_rounds_show_nothing(self):
        self.assertTrue(self.line("zero-page", [1.0, 1.0], [5.0, 5.0]).endswith("no difference shown"))

    def test_it_says_the_same_each_time(self):
        self.assertEqual(self.line("zero-page", noisy(1), noisy(1.01)), self.line("zero-page", noisy(1), noisy(1.01)))

    def test_layouts_are_compared_apart_and_missing_ones_named(self):
        a = result(part(series("x", noisy(1), [1.0] * 9)), part(series("x", noisy(1), [1.0] * 9), layout="two"))
        b = result(part(series("x", noisy(2), [1.0] * 9)), part(series("x", noisy(1), [1.0] * 9), layout="three"))
        b["machine"]["kernel"] = "other"
        _, out, _ = self.compare(a, b)
        self.assertIn("slower", out)
        self.assertEqual(out.count("only in"), 2)
        self.assertIn("note: another machine: kernel", out)

    def test_counts_are_compared_as_they_are(self):
        name = "directory_bytes_per_whole_unit"
        a = result(part(program="wvmbench capacity", counts={name: 33152}))
        b = result(part(program="wvmbench capacity", counts={name: 64}))
        _, out, _ = self.compare(a, b)
        self.assertIn("33152 -> 64  less", out)


class Page(Files):
    def page(self, *parts):
        paths = [self.file(f"part{i}", p) for i, p in enumerate(parts)]
        status, _, err = self.run_report("write", os.path.join(self.folder, "out"), *paths)
        self.assertEqual((status, err), (0, ""))
        with open(os.path.join(self.folder, "out", "result.md"), encoding="utf-8") as f:
            return f.read()

    def row(self, page, *begin):
        return next(x for x in page.splitlines() if x.startswith("| " + " | ".join(begin)))

    def test_limits_are_those_of_the_layout(self):
        s = series("remote-read", [1.3, 1.3, 1.3], [1.0, 1.0, 1.0])
        page = self.page(part(s), part(s, layout="two-cores-spinning"))
        self.assertIn("**not met**", self.row(page, "remote-read", "one-core"))
        self.assertIn("| met", self.row(page, "remote-read", "two-cores-spinning"))

    def test_a_median_at_its_limit_is_met_and_one_beyond_is_not(self):
        for name, unit, ours, met in (("guest-boot", "s", 1.1, True), ("guest-boot", "s", 1.11, False),
                                      ("first-touch", "MiB/s", 0.5, True), ("first-touch", "MiB/s", 0.49, False)):
            page = self.page(part(series(name, [0.01, ours, 9.0], [1.0] * 3, unit)))
            self.assertEqual("not met" not in self.row(page, name), met, (name, ours))
            self.assertIn("0.010 to 9.000", self.row(page, name))

    def test_counts_have_limits(self):
        name = "directory_bytes_per_tracked_page"
        for value, met in ((64, True), (65, False)):
            page = self.page(part(program="wvmbench capacity", counts={name: value}))
            self.assertEqual("not met" not in self.row(page, "capacity: " + name), met)

    def test_every_sample_and_the_machine_are_kept_and_can_be_read_back(self):
        p = part(series("local", [1.0, 2.0], [3.0, 4.0], "M accesses/s"), counts={"faults": 0})
        self.page(p)
        kept = report.read_result(os.path.join(self.folder, "out", "result.json"))
        self.assertEqual(kept["parts"], [p])
        for key in ("cpu", "cores", "kernel", "ram_kib", "commit"):
            self.assertTrue(kept["machine"][key], key)

    def test_plots_are_xml_with_a_bar_and_a_mark_for_each_limit(self):
        self.page(part(series("remote-read", [1.0] * 3, [1.0] * 3), series("first-touch", [9.0] * 3, [1.0] * 3, "B/s")),
                  part(series("remote-read", [50.0] * 3, [1.0] * 3), layout="a<b&c"))
        for name, rows in (("at-most.svg", 2), ("at-least.svg", 1)):
            svg = xml.dom.minidom.parse(os.path.join(self.folder, "out", name)).documentElement
            width = float(svg.getAttribute("width"))
            marks = [x for x in svg.getElementsByTagName("line") if x.getAttribute("stroke-width") == "3"]
            bars = svg.getElementsByTagName("rect")[1:]
            self.assertEqual((len(marks), len(bars)), (rows, rows))
            for bar in bars:
                self.assertLess(float(bar.getAttribute("x")) + float(bar.getAttribute("width")), width)

    def test_a_bar_that_meets_its_limit_ends_on_the_right_side_of_the_mark(self):
        for name, ours, beyond in (("at-most.svg", 1.0, False), ("at-most.svg", 2.0, True)):
            self.page(part(series("remote-read", [ours] * 3, [1.0] * 3)))
            svg = xml.dom.minidom.parse(os.path.join(self.folder, "out", name)).documentElement
            mark = [x for x in svg.getElementsByTagName("line") if x.getAttribute("stroke-width") == "3"][0]
            bar = svg.getElementsByTagName("rect")[1]
            end = float(bar.getAttribute("x")) + float(bar.getAttribute("width"))
            self.assertEqual(end > float(mark.getAttribute("x1")), beyond)


if __name__ == "__main__":
    outcome = unittest.TextTestRunner(verbosity=1).run(unittest.defaultTestLoader.loadTestsFromModule(sys.modules["__main__"]))
    bad = len(outcome.failures) + len(outcome.errors)
    print(f"{outcome.testsRun - bad} passed, {bad} failed")
    sys.exit(1 if bad else 0)
