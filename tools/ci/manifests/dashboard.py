"""Looks at a dashboard of Grafana, and writes its queries as rules that promtool can read.

    dashboard.py DASHBOARD.json > RULES.yaml
"""

import json
import re
import sys


def main():
    with open(sys.argv[1]) as file:
        dashboard = json.load(file)
    panels = list(all_panels(dashboard))
    faults = list(faults_of(dashboard, panels))
    if faults:
        sys.exit("\n".join(f"{sys.argv[1]}: {fault}" for fault in faults))
    queries = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    # JSON is YAML.
    rules = [{"record": f"panel:query:{n}", "expr": constant(query)} for n, query in enumerate(queries)]
    json.dump({"groups": [{"name": "dashboard", "rules": rules}]}, sys.stdout)


def all_panels(dashboard):
    for panel in dashboard["panels"]:
        yield panel
        yield from panel.get("panels", [])


def faults_of(dashboard, panels):
    ids = [panel["id"] for panel in panels]
    if len(ids) != len(set(ids)):
        yield "panels share an id"
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    shown = [panel for panel in panels if panel["type"] != "row"]
    if not shown:
        yield "no panel"
    for panel in shown:
        name = f"panel {panel['title']!r}"
        if not panel.get("targets"):
            yield f"{name} asks for nothing"
        for field in ("description", "datasource", "gridPos"):
            if not panel.get(field):
                yield f"{name} has no {field}"
        place = panel["gridPos"]
        if place["x"] + place["w"] > 24:
            yield f"{name} reaches beyond the grid's 24 columns"
        for other in shown:
            if other["id"] < panel["id"] and overlap(place, other["gridPos"]):
                yield f"{name} covers {other['title']!r}"
        for target in panel.get("targets", []):
            used = set(re.findall(r"\$\{?(\w+)", target["expr"]))
            for unknown in sorted(used - variables - {"__rate_interval", "__range"}):
                yield f"{name} uses ${unknown}, which nothing defines"


def overlap(a, b):
    beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
    apart = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
    return not beside and not apart


def constant(query):
    """The query with something in place of Grafana's variables."""
    query = re.sub(r"\$__\w+", "5m", query)
    return re.sub(r"\$\{?\w+\}?", ".*", query)


if __name__ == "__main__":
    main()
