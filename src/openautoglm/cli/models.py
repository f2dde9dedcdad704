"""``autoglm models``: the registry of models, versions, aliases, stages and routes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from openautoglm.cli.registry import Form, Place, Store, actor, iso, opened, plain, show, size, when

if TYPE_CHECKING:
    from openautoglm.serve.registry.records import Model, Version
    from openautoglm.serve.registry.registry import Registry

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True,
                  help="Models in the registry: versions, aliases, stages, routes.")
Wanted = Annotated[str, typer.Argument(metavar="MODEL/3|MODEL@ALIAS", help="A version, by number or alias; "
                                       "models:/ may stand before it.")]
Name = Annotated[str, typer.Argument(metavar="MODEL", help="A model's name.")]


@app.command()
def register(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle: folder, .zip or .pkl.")],
    name: Annotated[str, typer.Option(help="The model that it is a version of; made where it is new.")],
    reference: Annotated[bool, typer.Option("--reference", help="Leave the files where they are; by default they "
                                            "are copied into the store.")] = False,
    alias: Annotated[str | None, typer.Option(help="Let this alias point at it, e.g. champion.")] = None,
    stage: Annotated[str | None, typer.Option(help="none, staging, production or archived.")] = None,
    note: Annotated[str, typer.Option(help="A remark.")] = "",
    registry: Place = None, store: Store = None,
) -> None:
    """Register a bundle as the next version of a model; all its hashes are checked."""
    from openautoglm.serve.registry.names import Reference, check_alias, check_name, check_stage

    check_name(name, where="--name")
    if alias is not None:
        check_alias(alias, where="--alias")
    if stage is not None:
        check_stage(stage, where="--stage")
    with opened(registry, store) as use:
        before = use.revision()
        version = use.versions.register(bundle, name, by=actor(), copy=not reference, note=note)
        new = use.revision() != before
        if stage is not None:
            use.labels.set_stage(Reference(name, version.number), stage, by=actor())
        if alias is not None:
            use.labels.set_alias(name, alias, version.number, by=actor())
        typer.echo(f"{version.uri}" + ("" if new else "  (this bundle was registered before)"))


@app.command("list")
def list_models(form: Form = "table", registry: Place = None, store: Store = None) -> None:
    """List all models and versions."""
    with opened(registry, store) as use:
        models = list(use.snapshot().models.values())
        rows = [_row(use, model, version) for model in models for version in model.versions.values()]
        facts = {"models": [_facts(use, model) for model in models]}
    show(form, ("version", "stage", "aliases", "traffic", "bundle", "size", "parameters", "registered"), rows, facts,
         "no models; register one: autoglm models register BUNDLE --name NAME")


@app.command("show")
def show_version(model: Wanted, form: Form = "table", registry: Place = None, store: Store = None) -> None:
    """Show one version with everything that is known of it; of a plain name the one that answers by default."""
    from openautoglm.serve.registry.names import parse

    with opened(registry, store) as use:
        snapshot, wanted = use.snapshot(), parse(model)
        whole = snapshot.model(wanted.name)
        version = whole.versions.get(wanted.number or 0) or snapshot.find(wanted)
        facts = {"uri": version.uri, **_version_facts(use, whole, version), "path": str(use.store.path(version)),
                 "fingerprint": version.fingerprint, "created_by": version.created_by, "note": version.note,
                 **version.facts}
    show(form, ("", ""), [(key, plain(value)) for key, value in facts.items()], facts, "")


@app.command()
def alias(
    model: Annotated[str, typer.Argument(metavar="MODEL/3", help="A version; with --drop a model's name.")],
    alias: Annotated[str, typer.Argument(metavar="ALIAS", help="For example champion.")],
    drop: Annotated[bool, typer.Option("--drop", help="Take the alias away.")] = False,
    registry: Place = None, store: Store = None,
) -> None:
    """Let an alias point at a version, or take it away."""
    from openautoglm.serve.registry.names import parse

    wanted = parse(model)
    with opened(registry, store) as use:
        if drop:
            use.labels.drop_alias(wanted.name, alias, by=actor())
            typer.echo(f"{wanted.name}@{alias} is gone")
            return
        version = use.versions.get(wanted)
        before = use.labels.set_alias(version.model, alias, version.number, by=actor())
        was = f", before at version {before}" if before not in (None, version.number) else ""
        typer.echo(f"{version.model}@{alias} -> {version.uri}{was}")


@app.command()
def stage(
    model: Wanted,
    stage: Annotated[str, typer.Argument(metavar="STAGE", help="none, staging, production or archived.")],
    registry: Place = None, store: Store = None,
) -> None:
    """Move a version to another stage; nobody can use an archived one."""
    from openautoglm.serve.registry.names import parse

    with opened(registry, store) as use:
        version = use.labels.set_stage(parse(model), stage, by=actor())
        typer.echo(f"{version.uri}: {version.stage}")


@app.command()
def route(
    model: Name,
    shares: Annotated[list[str] | None, typer.Argument(metavar="VERSION=WEIGHT...", help="For example 3=90 4=10.",
                                                       )] = None,
    baseline: Annotated[int | None, typer.Option(help="The version that the others are compared with; by default "
                                                 "that of the greatest weight.")] = None,
    drop: Annotated[bool, typer.Option("--drop", help="Take the route away.")] = False,
    registry: Place = None, store: Store = None,
) -> None:
    """Split a model's traffic between versions; without weights show how it is split and how requests ended."""
    from openautoglm.serve.registry.routes import parse_weights

    if drop and shares:
        raise typer.BadParameter("give weights or --drop, not both", param_hint="--drop")
    with opened(registry, store) as use:
        if drop:
            use.routes.drop(model, by=actor())
            typer.echo(f"{model} has no route any more")
            return
        if shares:
            use.routes.set(model, parse_weights(shares), baseline=baseline, by=actor())
        _show_route(use, model)


@app.command()
def remove(
    model: Annotated[str, typer.Argument(metavar="MODEL/3", help="A version; with --all a model's name.")],
    whole: Annotated[bool, typer.Option("--all", help="The model with all versions, aliases and its route.")] = False,
    registry: Place = None, store: Store = None,
) -> None:
    """Remove a version, or with --all a model; copied bundles are deleted, referenced ones stay where they are."""
    from openautoglm.serve.faults import BadRequest
    from openautoglm.serve.registry.names import parse

    wanted = parse(model)
    if whole != (wanted.number is None) or wanted.alias is not None:
        raise BadRequest("one version is removed by its number, a whole model by its name and --all", where="model",
                         remedy=f"write {wanted.name}/3, or {wanted.name} --all")
    with opened(registry, store) as use:
        gone = (use.versions.remove_model(wanted.name, by=actor()) if whole
                else [use.versions.remove(wanted, by=actor())])
        for version in gone:
            typer.echo(f"{version.uri} removed" + ("" if version.copied else f"; its files stay at {version.location}"))


@app.command()
def load(model: Wanted,
         pin: Annotated[bool, typer.Option("--pin", help="Never unload it to make room.")] = False,
         registry: Place = None, store: Store = None) -> None:
    """Let servers load a version before its first use."""
    from openautoglm.serve.registry.names import parse

    with opened(registry, store) as use:
        version = use.wishes.set(parse(model), loaded=True, pinned=pin, by=actor())
        typer.echo(f"{version.uri}: servers will load it" + (" and keep it" if pin else ""))


@app.command()
def unload(model: Wanted,
           lazy: Annotated[bool, typer.Option("--lazy", help="Only take the wish back: loaded on first use.")] = False,
           registry: Place = None, store: Store = None) -> None:
    """Let servers unload a version; no request loads it until `load` or `unload --lazy` is said."""
    from openautoglm.serve.registry.names import parse

    with opened(registry, store) as use:
        if lazy:
            use.wishes.forget(parse(model), by=actor())
            typer.echo(f"{use.versions.get(model).uri}: loaded on first use")
        else:
            version = use.wishes.set(parse(model), loaded=False, by=actor())
            typer.echo(f"{version.uri}: servers will unload it")


@app.command()
def check(
    model: Annotated[str | None, typer.Argument(metavar="[MODEL]", help="One model; by default all.")] = None,
    sweep: Annotated[bool, typer.Option("--sweep", help="Delete folders of the store that no version knows.")] = False,
    registry: Place = None, store: Store = None,
) -> None:
    """Check every file of every bundle against its hash; exit code 1 where one is missing or damaged."""
    from openautoglm.core.progress import progress
    from openautoglm.serve.faults import Unavailable

    with opened(registry, store) as use:
        models = use.snapshot()
        versions = [version for one in ([models.model(model)] if model is not None else models.models.values())
                    for version in one.versions.values()]
        rows: list[tuple[object, ...]] = []
        bad = False
        with progress(len(versions), "check", "bundles") as bar:
            for version in versions:
                try:
                    use.store.open(version, packed=True)
                    rows.append((version.uri, "whole", use.store.path(version)))
                except Unavailable as error:
                    bad = True
                    rows.append((version.uri, "damaged", str(error.__cause__).replace("\n", ";")))
                bar.advance()
        swept = use.store.sweep(use.versions.locations()) if sweep else []
    show("table", ("version", "bundle", ""), rows, None, "no models")
    for name in swept:
        typer.echo(f"deleted from the store: {name}")
    if bad:
        raise typer.Exit(1)


@app.command()
def audit(
    model: Annotated[str | None, typer.Argument(metavar="[MODEL|KEY]", help="A model's name or a key's id.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Lines, newest first.")] = 50,
    form: Form = "table", registry: Place = None, store: Store = None,
) -> None:
    """Show who changed what, and when."""
    with opened(registry, store) as use:
        lines = use.audit.list(subject=model, limit=limit)
    facts = [{"id": line.id, "at": iso(line.at_s), "by": line.by, "action": line.action, "subject": line.subject,
              "detail": line.detail} for line in lines]
    rows = [(when(line.at_s), line.by, line.action, line.subject, plain(line.detail)) for line in lines]
    show(form, ("when (UTC)", "who", "what", "of", "detail"), rows, facts, "nothing was changed yet")


def _row(use: Registry, model: Model, version: Version) -> tuple[object, ...]:
    facts = _version_facts(use, model, version)
    return (f"{version.model}/{version.number}", version.stage, ", ".join(facts["aliases"]) or "-",
            facts["traffic"] or "-", facts["bundle"], size(version.size_bytes),
            f"{version.facts.get('parameters', 0):,}", when(version.created_s))


def _facts(use: Registry, model: Model) -> dict[str, Any]:
    return {"name": model.name, "aliases": dict(model.aliases),
            "versions": [{"uri": version.uri, **_version_facts(use, model, version)}
                         for version in model.versions.values()]}


def _version_facts(use: Registry, model: Model, version: Version) -> dict[str, Any]:
    share = next((one for one in (model.route.shares if model.route else ()) if one.number == version.number), None)
    total = sum(one.weight for one in model.route.live) if model.route else 0
    traffic = "" if share is None else "withdrawn" if share.weight == 0 else f"{share.weight / total:.0%}"
    return {"stage": version.stage, "aliases": list(model.named(version.number)), "traffic": traffic,
            "withdrawn": share.withdrawn if share else "", "bundle": use.store.health(version),
            "kept": "copied" if version.copied else "referenced", "size_bytes": version.size_bytes,
            "created": iso(version.created_s)}


def _show_route(use: Registry, name: str) -> None:
    model = use.snapshot().model(name)
    route = model.route
    rows: list[tuple[object, ...]] = []
    if route is not None:
        ids = {share.number: model.versions[share.number].id for share in route.shares}
        totals = use.outcomes.totals(ids.values(), since_s=route.since_s)
        total = sum(share.weight for share in route.live)
        for share in route.shares:
            ended = totals[ids[share.number]]
            p95_s = ended.quantile_s(0.95)
            role = "baseline" if share.baseline else f"withdrawn: {share.withdrawn}" if not share.weight else "on trial"
            rows.append((f"{name}/{share.number}", f"{share.weight / total:.1%}", role, f"{ended.requests:,}",
                         f"{ended.errors:,}", "-" if p95_s is None else f"{p95_s:.3g} s"))
    show("table", ("version", "traffic", "role", "requests", "failed", "p95"), rows, None, f"{name} has no route")
