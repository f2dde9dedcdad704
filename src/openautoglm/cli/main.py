"""The entry point ``autoglm``: global options, lazy verbs, and errors told without a traceback."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from openautoglm.cli.failure import INTERRUPTED, tell
from openautoglm.core.version import __version__

VERBS = {
    "run": "Run a task file from data to bundle and report.",
    "check": "Check a task file and its data before anything runs, or a bundle.",
    "estimate": "Tell memory and time of training, compressing and serving beforehand.",
    "clean": "Clean and split the data of a task.",
    "search": "Search model shape and training settings.",
    "train": "Train the model of a task.",
    "evaluate": "Score a bundle, or predictions against references.",
    "compress": "Make a bundle smaller and faster, and measure what it cost.",
    "generate": "Generate with a bundle, JSON lines out.",
    "export": "Write a model for other programs: GGUF for llama.cpp, or a copy.",
    "serve": "Serve a bundle over HTTP, in the form of OpenAI's interface.",
    "edge": "Make a small program of a bundle, to run without Python.",
    "graph": "Show the graph of a model, and what the rules make of it.",
    "models": "Models in the registry: versions, aliases, stages, routes.",
    "keys": "Keys of the service: create, list, revoke.",
    "bench": "Measure a server or a bundle under load.",
    "sweep": "Find a bundle's engine settings under load.",
    "report": "Write the HTML report of a run again.",
    "doctor": "Check machine and installation.",
}
_FLAGS = {"--quiet": 0, "-q": 0, "--debug": 0, "--log-format": 1}


class LazyGroup(TyperGroup):
    """A group whose verbs are modules, imported when they are named."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Import the module of the verb that was named; the table above only serves the help text."""
        name, stub, rest = super().resolve_command(ctx, args)
        if name is None or stub is None:
            return name, stub, rest
        module = import_module(f"openautoglm.cli.{name}")
        return name, typer.main.get_command(module.app), rest


app = typer.Typer(name="autoglm", cls=LazyGroup, add_completion=False, no_args_is_help=True,
                  rich_markup_mode=None, pretty_exceptions_enable=False,
                  help="From your data and budget to a GLM-family language model: trained, proven, exported.",
                  context_settings={"help_option_names": ["-h", "--help"]})


def _stub() -> None:
    """Stands for a verb in the help text."""


for _name, _help in VERBS.items():
    app.command(_name, help=_help)(_stub)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"openautoglm {__version__}")
        raise typer.Exit


@app.callback()
def options(
    log_format: Annotated[str, typer.Option(help="How to write the log: text or json.")] = "text",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only warnings and results.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and debug messages.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True,
                                          help="Print the version.")] = False,
) -> None:
    """Set the log up; runs before any verb."""
    from openautoglm.core.log import configure

    if log_format not in ("text", "json"):
        raise typer.BadParameter(f"{log_format!r} is neither text nor json", param_hint="--log-format")
    level = "debug" if debug else "warning" if quiet else "info"
    configure("json" if log_format == "json" else "text", level)


def hoist(arguments: Sequence[str]) -> list[str]:
    """Move global options, which people also write behind the verb, to the front."""
    front, rest = list[str](), list[str]()
    items = iter(arguments)
    for item in items:
        if item == "--":
            rest += [item, *items]
        elif item in _FLAGS:
            front.append(item)
            front += [value for _, value in zip(range(_FLAGS[item]), items, strict=False)]
        elif item.startswith("--log-format="):
            front.append(item)
        else:
            rest.append(item)
    return [*front, *rest]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 wrong task, data or usage, 130 interrupted."""
    given = hoist(sys.argv[1:] if arguments is None else arguments)
    try:
        code = app(args=given, prog_name="autoglm", standalone_mode=False)
        if code == INTERRUPTED:  # typer has made an exit code of the interruption
            raise KeyboardInterrupt
    except BaseException as error:
        code = tell(error, given)
        if code is None:
            raise
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
