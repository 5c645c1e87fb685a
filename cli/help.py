"""Help that fits a screen: the options most runs need, and with ``--help-all`` all of them, by section."""

import click

from onnx_lapq.cli.fields import SECTIONS, Section

__all__ = ["SectionedCommand"]


class SectionedCommand(click.Command):
    """A command with many options."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The parameters, and ``--help-all``."""
        return [*super().get_params(ctx), _HELP_ALL]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options by section."""
        options = {option.name: option for option in self.get_params(ctx) if isinstance(option, click.Option)}
        shared = {name for section in SECTIONS for name in (*section.common, *section.others)}
        own = Section("Options", tuple(name for name in options if name not in shared))
        for section in (own, *SECTIONS):
            names = (*section.common, *(section.others if ctx.meta.get(_EVERY) else ()))
            found = [options[name] for name in names if name in options]
            shown = [record for option in found if (record := option.get_help_record(ctx)) is not None]
            if shown:
                with formatter.section(section.title):
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
