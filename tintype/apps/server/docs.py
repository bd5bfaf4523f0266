"""What can be asked here, as a page: made from the OpenAPI schema, without a script and without any other site."""

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from fastapi import APIRouter, Response
from fastapi import Request as Call

from tintype.apps.server.page import POLICY
from tintype.apps.server.waiting import settings_of

Schema = Mapping[str, Any]
METHODS = ("get", "post", "put", "patch", "delete")
BOUNDS = (
    ("minimum", "from {}"), ("maximum", "to {}"), ("exclusiveMinimum", "above {}"), ("exclusiveMaximum", "below {}"),
    ("minLength", "{} signs or more"), ("maxLength", "{} signs at most"), ("maxItems", "{} at most"),
    ("pattern", "like {}"),
)  # fmt: skip
STYLE = """
:root { color-scheme: light dark; font: 1rem/1.5 system-ui, sans-serif; }
body { max-width: 70rem; margin: 0 auto; padding: 1rem; }
h2 { margin-top: 3rem; border-bottom: 1px solid; }
h3 { margin: 2rem 0 0; overflow-wrap: anywhere; }
p { margin: .25rem 0; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0; font-size: .9rem; }
th, td { text-align: left; vertical-align: top; padding: .2rem .8rem .2rem 0; overflow-wrap: anywhere; }
tr { border-bottom: 1px solid color-mix(in srgb, currentColor 20%, transparent); }
td:first-child { white-space: nowrap; }
nav a { margin-right: 1rem; }
"""


def docs_routes() -> APIRouter:
    router = APIRouter(include_in_schema=False)

    @router.get("/docs")
    def docs(call: Call) -> Response:
        policy = " ".join((POLICY, *settings_of(call).frames))
        text = page(call.app.openapi())
        return Response(text, media_type="text/html", headers={"Content-Security-Policy": policy})

    @router.get("/docs.css")
    def style() -> Response:
        return Response(STYLE, media_type="text/css")

    return router


def page(described: Schema) -> str:
    """All calls by their tags, then what they take and answer."""
    title, schemas = escape(described["info"]["title"]), described.get("components", {}).get("schemas", {})
    groups: dict[str, list[str]] = {}
    for path, calls in described["paths"].items():
        for method in (one for one in METHODS if one in calls):
            tag = next(iter(calls[method].get("tags", ["others"])))
            groups.setdefault(tag, []).append("".join(_call(method, path, calls[method])))
    parts = [f'<h2 id="{escape(tag)}">{escape(tag)}</h2>{"".join(calls)}' for tag, calls in groups.items()]
    shapes = "".join(f'<h3 id="{escape(name)}">{escape(name)}</h3>{_shape(one)}' for name, one in schemas.items())
    links = "".join(f'<a href="#{escape(tag)}">{escape(tag)}</a>' for tag in (*groups, "shapes"))
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}: what can be asked</title>'
        '<meta name="viewport" content="width=device-width"><link rel="stylesheet" href="docs.css"></head><body>'
        f"<h1>{title} {escape(described['info']['version'])}</h1><p>{escape(described['info'].get('description', ''))} "
        f'For programs: <a href="openapi.json">openapi.json</a></p><nav>{links}</nav>'
        f'{"".join(parts)}<h2 id="shapes">shapes</h2>{shapes}</body></html>'
    )


def _call(method: str, path: str, told: Schema) -> Iterator[str]:
    yield f"<h3><code>{method.upper()} {escape(path)}</code></h3>"
    yield f"<p>{escape(told.get('description') or told.get('summary', ''))}</p>"
    parameters = told.get("parameters", [])
    if parameters:
        yield _table(
            (
                one["name"],
                f"{_kind(one['schema'])}, in the {escape(one['in'])}",
                one.get("description", ""),
                _usual(one),
            )
            for one in parameters
        )
    for kind, one in told.get("requestBody", {}).get("content", {}).items():
        yield f"<p>Takes {escape(kind)}: {_kind(one['schema'])}</p>"
        if "properties" in one["schema"]:
            yield _shape(one["schema"])
    answers: list[str] = []
    for status, one in told["responses"].items():
        kinds = [_kind(content["schema"]) for content in one.get("content", {}).values() if content.get("schema")]
        answers.append(f"<code>{status}</code> {escape(one['description'])} {' or '.join(kinds)}".strip())
    yield f"<p>Answers {'; '.join(answers)}</p>"


def _shape(schema: Schema) -> str:
    """The fields of an object, or what else it is."""
    told = f"<p>{escape(schema.get('description', ''))}</p>" if schema.get("description") else ""
    fields: Schema = schema.get("properties", {})
    if not fields:
        return f"{told}<p>{_kind(schema)}</p>"
    needed = schema.get("required", [])
    return told + _table(
        (name, _kind(one), one.get("description", ""), "needed" if name in needed else _usual({"schema": one}))
        for name, one in fields.items()
    )


def _table(rows: Iterator[tuple[str, str, str, str]]) -> str:
    lines = (
        f"<tr><td><code>{escape(name)}</code></td><td>{kind}</td><td>{escape(told)}</td><td>{usual}</td></tr>"
        for name, kind, told, usual in rows
    )
    return f"<table><tr><th>name</th><th>what</th><th></th><th></th></tr>{''.join(lines)}</table>"


def _usual(told: Schema) -> str:
    """Whether it is needed, or what it is where it is left out."""
    if told.get("required"):
        return "needed"
    usual = told["schema"].get("default")
    return "" if usual in (None, "", []) else f"usually {escape(str(usual))}"


def _kind(schema: Schema) -> str:
    """A type and its bounds, in words."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(_kind(one) for one in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return ", ".join(f"<code>{escape(str(one))}</code>" for one in schema.get("enum", [schema.get("const")]))
    kind = escape(str(schema.get("format") or schema.get("type") or "anything"))
    if schema.get("type") == "array":
        kind = f"list of {_kind(schema.get('items', {}))}"
    bounds = [said.format(escape(f"{schema[name]}")) for name, said in BOUNDS if name in schema]
    return " ".join((kind, ", ".join(bounds))).strip()
