"""Create or upgrade the database schema. Safe to run twice, and from two machines at the same time."""

from __future__ import annotations

import argparse
import json

import command

import migrations
from settings import Settings


def main(arguments: argparse.Namespace, _settings: Settings) -> None:
    """Apply what is missing, and say what was applied. Raises SchemaError on a newer schema."""
    applied = migrations.upgrade()
    if arguments.json:
        print(json.dumps({"applied": applied}))
    elif applied:
        print(f"Applied {', '.join(applied)}. The schema is up to date.")
    else:
        print("Nothing to do: the schema is up to date.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the applied migrations as JSON")
    command.run(parser, main)
