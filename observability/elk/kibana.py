"""Makes what Kibana imports: `python3 observability/elk/kibana.py`; with --check it changes nothing and fails when
kibana.ndjson is out of date. Kibana keeps a JSON text within each object, which nobody wants to write by hand.
"""

import json
import sys
from pathlib import Path

FILE = Path(__file__).with_name("kibana.ndjson")
VIEW = "dockside-logs"
DATA = "kibanaSavedObjectMeta.searchSourceJSON.index"


def source(query):
    return {"searchSourceJSON": json.dumps({"query": {"query": query, "language": "kuery"}, "filter": [], "indexRefName": DATA})}


# In whose shape each is; without, Kibana takes it for one of its first versions and changes it.
SHAPES = {"index-pattern": "8.0.0", "search": "8.0.0", "visualization": "8.5.0", "dashboard": "8.9.0"}


def thing(kind, name, attributes, references):
    shape = {"coreMigrationVersion": "8.8.0", "typeMigrationVersion": SHAPES[kind]}
    return {"type": kind, "id": name, "attributes": attributes, "references": references} | shape


def search(name, title, description, query, columns):
    attributes = {"title": title, "description": description, "columns": columns, "sort": [["@timestamp", "desc"]], "kibanaSavedObjectMeta": source(query)}
    return thing("search", name, attributes, [{"type": "index-pattern", "id": VIEW, "name": DATA}])


def chart(name, title, description, query, by):
    """Lines over time, by a field."""
    aggregations = [
        {"id": "1", "enabled": True, "type": "count", "schema": "metric", "params": {}},
        {"id": "2", "enabled": True, "type": "date_histogram", "schema": "segment", "params": {"field": "@timestamp", "interval": "auto", "min_doc_count": 0}},
        {"id": "3", "enabled": True, "type": "terms", "schema": "group", "params": {"field": by, "size": 10, "order": "desc", "orderBy": "1"}},
    ]
    params = {"type": "histogram", "addTooltip": True, "addLegend": True, "legendPosition": "right", "seriesParams": [{"type": "histogram", "mode": "stacked", "data": {"id": "1", "label": "Lines"}, "show": True, "valueAxis": "ValueAxis-1"}],
              "categoryAxes": [{"id": "CategoryAxis-1", "type": "category", "position": "bottom", "show": True, "scale": {"type": "linear"}, "labels": {"show": True}}],
              "valueAxes": [{"id": "ValueAxis-1", "name": "LeftAxis-1", "type": "value", "position": "left", "show": True, "scale": {"type": "linear", "mode": "normal"}, "labels": {"show": True}, "title": {"text": "Lines"}}]}
    state = {"title": title, "type": "histogram", "aggs": aggregations, "params": params}
    attributes = {"title": title, "description": description, "visState": json.dumps(state), "uiStateJSON": "{}", "version": 1, "kibanaSavedObjectMeta": source(query)}
    return thing("visualization", name, attributes, [{"type": "index-pattern", "id": VIEW, "name": DATA}])


def dashboard(name, title, description, rows):
    """Each row is as wide as the page."""
    panels, references, y = [], [], 0
    for at, (kind, of, height) in enumerate(rows, start=1):
        panels.append({"version": "8.19.3", "type": kind, "panelIndex": f"{at}", "panelRefName": f"panel_{at}", "embeddableConfig": {}, "gridData": {"x": 0, "y": y, "w": 48, "h": height, "i": f"{at}"}})
        references.append({"type": kind, "id": of, "name": f"{at}:panel_{at}"})
        y += height
    attributes = {
        "title": title, "description": description, "panelsJSON": json.dumps(panels), "optionsJSON": json.dumps({"useMargins": True, "hidePanelTitles": False}),
        "timeRestore": True, "timeFrom": "now-1h", "timeTo": "now", "kibanaSavedObjectMeta": {"searchSourceJSON": json.dumps({"query": {"query": "", "language": "kuery"}, "filter": []})}, "version": 1,
    }
    return thing("dashboard", name, attributes, references)


THINGS = [
    thing("index-pattern", VIEW, {"title": "logs-dockside-*", "name": "Dockside's logs", "timeFieldName": "@timestamp"}, []),
    search("dockside-trouble", "Warnings and errors", "What the services warn of. Filter by order.id or trace.id to follow one.", "log.level : (WARN or ERROR or warn or error)",
           ["service.name", "log.level", "message", "order.id", "trace.id"]),
    search("dockside-requests", "Requests", "One line for each request.", "http.request.method : *", ["service.name", "http.request.method", "url.path", "http.response.status_code", "event.duration", "order.id"]),
    chart("dockside-lines", "Lines by service", "How much each service writes.", "", "service.name"),
    chart("dockside-status", "Requests by status", "How requests were answered.", "http.request.method : *", "http.response.status_code"),
    dashboard("dockside-shop", "Dockside", "The shop's logs: how requests were answered, and what went wrong.",
              [("visualization", "dockside-status", 12), ("visualization", "dockside-lines", 12), ("search", "dockside-trouble", 18), ("search", "dockside-requests", 18)]),
]


def main():
    text = "".join(json.dumps(one) + "\n" for one in THINGS)
    if "--check" in sys.argv:
        if stale := not FILE.exists() or FILE.read_text() != text:
            print("kibana.ndjson is out of date: python3 observability/elk/kibana.py", file=sys.stderr)
        return stale
    FILE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
