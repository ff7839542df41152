"""Checks what the chart brings for Prometheus and Grafana: alerts, their tests and runbooks, dashboards.

Usage: monitoring_check.py HELM, from the root of the repository; needs what scripts/chart.txt lists, and promtool on the PATH.
"""

import enum
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import types
import typing

import yaml
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

CHART = "charts/sheave"
# It has everything, under a name of its own.
VALUES = f"{CHART}/ci/deployment.yaml"
RUNBOOKS = pathlib.Path("docs/runbooks")
UNITS = {"Bps", "bytes", "cps", "percentunit", "s", "short"}
WIDTH = 24
# What no panel shows and no alert needs.
UNSEEN = {
    # Its age is shown.
    "sheave_process_start_time_seconds",
}
# What Prometheus itself has of whoever it scrapes.
ITS_OWN = {"up"}


def main(helm):
    problems = []
    rendered = subprocess.run([helm, "template", "sheave", CHART, "--values", VALUES], check=True, capture_output=True, text=True)
    documents = [document for document in yaml.safe_load_all(rendered.stdout) if document]
    [rules] = [document["spec"] for document in documents if document["kind"] == "PrometheusRule"]
    configs = [document["data"] for document in documents if document["kind"] == "ConfigMap"]
    dashboards = {name: json.loads(text) for data in configs for name, text in data.items() if name.endswith(".json")}
    known = metrics()
    alerts(rules, problems)
    promtool(rules, problems)
    plugins.register_default_plugins()
    for name, dashboard in dashboards.items():
        looks(name, dashboard, problems)
        schema(name, dashboard, problems)
    for key in "uid", "title":
        values = [dashboard[key] for dashboard in dashboards.values()]
        expect(len(set(values)) == len(values), f"two dashboards have one {key}: {values}", problems)
    seen = {f"alert {rule['alert']}": rule["expr"] for rule in all_rules(rules)}
    for name, dashboard in dashboards.items():
        seen.update({f"{name}: {panel['title']}": " ".join(queries(panel)) for panel in dashboard["panels"]})
    named = {f"{page}": page.read_text() for page in RUNBOOKS.glob("*.md")}
    for texts, names in (seen, known.keys()), (named, known.keys() | set(known.values())):
        for where, text in texts.items():
            for metric in sorted(set(re.findall(r"\bsheave_[a-z0-9_]+", text)) - names):
                problems.append(f"{where}: there is no metric {metric}")
    used = set(re.findall(r"\bsheave_[a-z0-9_]+", " ".join(seen.values())))
    shown = {known[metric] for metric in used & known.keys()}
    for metric in sorted(set(known.values()) - shown - UNSEEN):
        problems.append(f"{metric}: no panel and no alert uses it; show it (scripts/dashboards.py), or list it as unseen here")
    for problem in problems:
        print(f"monitoring: {problem}", file=sys.stderr)
    if problems:
        sys.exit(f"monitoring: {len(problems)} problems")
    panels = sum(len(dashboard["panels"]) for dashboard in dashboards.values())
    print(f"monitoring: {len(list(all_rules(rules)))} alerts and {panels} panels are as they should be")


def metrics():
    """Every name that a query may use, and the metric that it is of, by docs/metrics.md."""
    known = {}
    for name, kind in re.findall(r"^\| `(sheave_\w+)` \| (\w+) \|", pathlib.Path("docs/metrics.md").read_text(), re.MULTILINE):
        suffixes = {"histogram": ["_bucket", "_sum", "_count"], "summary": ["_sum", "_count"]}.get(kind, [""])
        known.update({name + suffix: name for suffix in suffixes})
    return known


def all_rules(rules):
    return (rule for group in rules["groups"] for rule in group["rules"])


def alerts(rules, problems):
    names = [rule["alert"] for rule in all_rules(rules)]
    expect(len(set(names)) == len(names), "two alerts have one name", problems)
    pages = {page.stem for page in RUNBOOKS.glob("*.md")}
    expect(pages == set(names), f"runbooks without alert or alerts without runbook: {pages ^ set(names)}", problems)
    for rule in all_rules(rules):
        name, notes = rule["alert"], rule["annotations"]
        expect(rule["labels"]["severity"] in {"critical", "warning"}, f"{name}: severity", problems)
        for note in "summary", "description":
            expect(notes.get(note), f"{name}: no {note}", problems)
        wanted = f"https://example.com/runbooks/{name}.md"
        expect(notes.get("runbook_url") == wanted, f"{name}: its runbook is not {wanted}", problems)
        expect("for" in rule, f"{name}: one bad scrape would be enough", problems)


def promtool(rules, problems):
    """The rules as the chart renders them, by Prometheus' own tool."""
    tests = pathlib.Path("tests/alerts.yaml").read_text()
    cases = [case for test in yaml.safe_load(tests)["tests"] for case in test["alert_rule_test"]]
    for name in (rule["alert"] for rule in all_rules(rules)):
        fires = {bool(case["exp_alerts"]) for case in cases if case["alertname"] == name}
        expect(fires == {False, True}, f"{name}: tests/alerts.yaml has to show that it fires, and that it does not", problems)
    with tempfile.TemporaryDirectory() as folder:
        rules_file, tests_file = pathlib.Path(folder, "rules.yaml"), pathlib.Path(folder, "tests.yaml")
        rules_file.write_text(yaml.safe_dump(rules))
        tests_file.write_text(tests.replace("[RULES]", "[rules.yaml]").replace("RUNBOOKS/", "https://example.com/runbooks/"))
        for arguments in ["check", "rules", rules_file], ["test", "rules", tests_file]:
            result = subprocess.run(["promtool", *arguments], capture_output=True, text=True)
            expect(result.returncode == 0, f"promtool {arguments[0]} rules: {result.stdout}{result.stderr}", problems)


def looks(name, dashboard, problems):
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    expect({"datasource", "traces"} <= variables.keys(), f"{name}: no variable for a datasource", problems)
    panels, taken = dashboard["panels"], {}
    ids = [panel["id"] for panel in panels]
    expect(len(set(ids)) == len(ids), f"{name}: two panels have one id", problems)
    titles = [panel["title"] for panel in panels]
    expect(len(set(titles)) == len(titles), f"{name}: two panels have one title", problems)
    for panel in panels:
        where = f"{name}: {panel['title']}"
        description = panel.get("description", "")
        expect("?" in description and description.endswith((".", "?")), f"{where}: its description asks no question", problems)
        expect(panel["fieldConfig"]["defaults"].get("unit") in UNITS, f"{where}: unit", problems)
        expect(panel["targets"], f"{where}: no query", problems)
        references = [target["refId"] for target in panel["targets"]]
        expect(len(set(references)) == len(references), f"{where}: two queries have one refId", problems)
        for source in panel["datasource"], *(target["datasource"] for target in panel["targets"]):
            expect(source == {"type": "prometheus", "uid": "${datasource}"}, f"{where}: datasource {source}", problems)
        place = panel["gridPos"]
        expect(place["x"] + place["w"] <= WIDTH, f"{where}: out of the grid", problems)
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                other = taken.setdefault((x, y), panel["title"])
                expect(other == panel["title"], f"{where}: lies on {other}", problems)
        for query in queries(panel):
            used = set(re.findall(r"\$\{?([a-z]\w*)", query))
            expect(used <= variables.keys(), f"{where}: no variable {used - variables.keys()}", problems)
            expect('instance=~"$instance"' in query, f"{where}: is not narrowed down by the variables", problems)
    used = set(re.findall(r"\$\{?([a-z]\w*)", json.dumps(dashboard)))
    expect(variables.keys() <= used, f"{name}: variables that nothing uses: {variables.keys() - used}", problems)


def schema(name, dashboard, problems):
    """Whether it is what Grafana's own types say, which are made from its schema: keys that they do not know are lost in them."""
    try:
        read = Dashboard.from_json(dashboard)
        known = json.loads(JSONEncoder().encode(read))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        problems.append(f"{name}: Grafana cannot read it: {error!r}")
        return
    for path in unknown(dashboard, known):
        problems.append(f"{name}: Grafana knows no {path}")
    for path in misfits(read, Dashboard, ""):
        problems.append(f"{name}: Grafana wants something else as {path}")


def unknown(ours, theirs, path=""):
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key, value in ours.items():
            yield from unknown(value, theirs[key], f"{path}.{key}") if key in theirs else [f"{path}.{key}"]
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for index, (one, other) in enumerate(zip(ours, theirs)):
            yield from unknown(one, other, f"{path}[{index}]")
    elif ours != theirs:
        yield f"{path}: {ours!r}"


def misfits(value, kind, path):
    """Where a value is none of what the type says."""
    is_choice = typing.get_origin(kind) in {typing.Union, types.UnionType}
    found = [list(misfit(value, choice, path)) for choice in (typing.get_args(kind) if is_choice else [kind])]
    if all(found):
        yield from min(found, key=len)


def misfit(value, kind, path):
    plain, within = typing.get_origin(kind) or kind, typing.get_args(kind)
    if plain is typing.Literal:
        fits = value in within
    elif issubclass(plain, enum.Enum):
        fits = value in {member.value for member in plain}
    elif plain is float:
        fits = type(value) in {int, float}
    elif plain in {bool, int, str}:
        fits = type(value) is plain
    else:
        # Queries are of any kind that is registered.
        fits = plain is object or isinstance(value, plain) or hasattr(value, "to_json")
    if not fits:
        yield f"{path}: {value!r}"
    elif plain is list:
        for index, item in enumerate(value):
            yield from misfits(item, within[0], f"{path}[{index}]")
    elif plain is dict:
        for key, item in value.items():
            yield from misfits(item, within[1], f"{path}.{key}")
    elif hasattr(value, "to_json"):
        for key, field in typing.get_type_hints(type(value)).items():
            yield from misfits(getattr(value, key), field, f"{path}.{key}")


def queries(panel):
    return [target["expr"] for target in panel["targets"]]


def expect(is_right, problem, problems):
    if not is_right and problem not in problems:
        problems.append(problem)


if __name__ == "__main__":
    main(*sys.argv[1:])
