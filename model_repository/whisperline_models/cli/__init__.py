"""The command `whisperline-models`, which is also available as `whisperline models`."""

import typer

from whisperline_models.cli import rollout, versions

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_show_locals=False)


@app.callback()
def main() -> None:
    """Make versions of Whisper for Triton, and roll them out."""


# The order in `--help` is the order in which a version goes through them.
for command in (
    *(versions.export, versions.init, versions.assemble, versions.verify),
    *(rollout.publish, rollout.canary, rollout.promote, rollout.rollback, rollout.remove),
):
    app.command()(command)
app.command("list")(rollout.list_versions)
