"""Help that fits a screen: the options most runs need, and with ``--help-all`` all of them, by section."""

import click

__all__ = ["SectionedCommand"]

_SECTIONS = {
    "Bits and nodes": (
        *("weight_bits", "activation_bits", "size_budget", "bits", "per_channel", "first_last"),
        *("include", "exclude", "op_types", "placement", "target", "full_range", "storage"),
    ),
    "Samples": ("samples", "preset", "resize", "crop", "scale", "mean", "std", "color", "layout"),
    "Search": (
        *("loss", "max_evaluations", "max_minutes", "guard", "method", "p", "percentile", "seed"),
        *("p_values", "equalize", "transform", "rounding", "optimizer", "bias_correction"),
        *("resume", "keep_best", "verify"),
    ),
    "Test set": ("test", "min_accuracy", "max_drop", "max_kl"),
    "Machine": ("workers", "memory", "executor", "provider"),
    "Record": ("config", "report", "mlflow", "experiment", "as_json", "log_format", "quiet", "verbose"),
}
"""Options that commands share. Those of one command come before them."""

_COMMON = frozenset(
    (
        *("weight_bits", "activation_bits", "size_budget", "bits", "exclude", "target"),
        *("samples", "preset", "mean", "std"),
        *("max_minutes", "test", "max_drop", "resume"),
        *("config", "report", "as_json", "quiet"),
    )
)


class SectionedCommand(click.Command):
    """A command with many options."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The parameters, and ``--help-all``."""
        return [*super().get_params(ctx), _HELP_ALL]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options by section."""
        options = {option.name: option for option in self.get_params(ctx) if isinstance(option, click.Option)}
        shared = {name for names in _SECTIONS.values() for name in names}
        own = [name for name in options if name not in shared]
        hidden = set() if ctx.meta.get(_EVERY) else shared - _COMMON
        for title, names in {"Options": own, **_SECTIONS}.items():
            found = [options[name] for name in names if name in options and name not in hidden]
            shown = [record for option in found if (record := option.get_help_record(ctx)) is not None]
            if shown:
                with formatter.section(title):
                    formatter.write_dl(shown)


_EVERY = f"{__name__}.every"


def _show_every(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        ctx.meta[_EVERY] = True
        click.echo(ctx.get_help(), color=ctx.color)
        ctx.exit()


_HELP_ALL = click.Option(
    ["--help-all"],
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_every,
    help="Show every option and exit.",
)
