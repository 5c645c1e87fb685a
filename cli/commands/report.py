"""``onnx-lapq report``: what ``OUT.report.json`` holds."""

import json

import click

from onnx_lapq.common.records import json_schema

__all__ = ["report"]


@click.command()
@click.option("--schema", is_flag=True, required=True, help="The JSON Schema of OUT.report.json.")
def report(schema: bool) -> None:
    """Print the JSON Schema of the report that every run writes."""
    from onnx_lapq.report.record import Report

    click.echo(json.dumps(json_schema(Report), indent=2, ensure_ascii=False))
