"""The command `llmproxy`. What a command needs is imported when it runs: `--version` and `check` stay light."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from typing import IO

import click

from llmproxy_server.cli_exit import ExitCode
from llmproxy_server.cli_terminal import faint, mention

LOG_LEVELS = ("trace", "debug", "info", "warn", "error")

config_option = click.option(
    "--config", metavar="FILE", help="The configuration, a TOML file. Without it: the embedded default."
)


@click.group(
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="llmproxy", prog_name="llmproxy", message="%(prog)s %(version)s")
@click.pass_context
def llmproxy(context: click.Context) -> None:
    """A reverse proxy and gateway for the APIs of large language models."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@llmproxy.command()
@config_option
@click.option("--host", help="The address to bind, instead of [server] host.")
@click.option("--port", type=click.IntRange(0, 65535), help="The TCP port, instead of [server] port; 0: a free one.")
@click.option("--workers", type=click.IntRange(1, 256), help="How many processes serve, instead of [server] workers.")
@click.option(
    "--log-level",
    type=click.Choice(LOG_LEVELS, case_sensitive=False),
    help="The least level that is logged, instead of [server.log] level.",
)
@click.pass_context
def serve(
    context: click.Context,
    *,
    config: str | None,
    host: str | None,
    port: int | None,
    workers: int | None,
    log_level: str | None,
) -> None:
    """
    Start the proxy; Ctrl-C or SIGTERM drains and stops it, SIGHUP reloads its configuration.

    Without --config the embedded default is served: every provider whose key is in the environment, and a demo that
    needs none. The command line wins over the environment, and that over the file; `.env` fills what is not set.
    """
    from llmproxy_server.missing import check_compiled
    from llmproxy_server.runtime import load_quickly
    from llmproxy_server.signals import hear

    hear()
    load_quickly()
    check_compiled()
    from llmproxy_server.cli_serve import serve as run

    given = {"server.host": host, "server.port": port, "server.workers": workers, "server.log.level": log_level}
    context.exit(run(config, given))


@llmproxy.command()
@click.argument("file")
def check(file: str) -> None:
    """
    Check the configuration FILE.

    Prints the routes with the chain of each operation, their LLMs, and warnings; or every problem, with exit code 1.
    """
    from llmproxy_server.cli_check import check as run

    run(file)


@llmproxy.command()
@click.argument("old")
@click.argument("new")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON, for machines.")
@click.pass_context
def diff(context: click.Context, old: str, new: str, as_json: bool) -> None:
    """
    Say what a reload from the configuration OLD to NEW would change.

    Routes, LLMs, processors, stores and settings; what the proxy would lose by it; what only a restart changes. Exit
    code 0 when there is nothing, 1 when there is something, 2 when one of the files cannot be served.
    """
    from llmproxy_server.cli_diff import diff as run

    context.exit(run(old, new, as_json=as_json))


@llmproxy.command()
@click.argument("method")
@click.argument("path")
@click.option("--model", metavar="NAME", help="The model that the request would name.")
@config_option
@click.pass_context
def explain(context: click.Context, method: str, path: str, model: str | None, config: str | None) -> None:
    """
    Say what would become of the request METHOD PATH.

    Which route serves it and why, the operation, the processors in order, the LLM and the upstream URL. Nothing is
    sent. Exit code 1 when nothing serves it.
    """
    from llmproxy_server.cli_explain import explain as run

    context.exit(ExitCode.OK if run(method, path, model, config) else ExitCode.NOT_SO)


@llmproxy.command()
@click.argument("file")
@click.option(
    "--calls", type=click.IntRange(1, 10_000), default=40, show_default=True, help="To each route in a phase."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Another one: other jitter, other lots.")
@click.option("--fast", is_flag=True, help="Waiting takes no time; seconds are told as they would have been.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON, for machines.")
def rehearse(file: str, *, calls: int, seed: int, fast: bool, as_json: bool) -> None:
    """
    Play a day on which providers fail against the configuration FILE.

    Built-in fake providers stand for those of FILE, each of which limits, is down, cuts, goes silent, and so on. Says
    what clients saw, what was tried again, what it would have cost. No key is needed, and nothing leaves the machine.
    """
    from llmproxy_server.cli_rehearse import rehearse as run

    run(file, calls=calls, seed=seed, fast=fast, json=as_json)


@llmproxy.command()
def plugins() -> None:
    """
    List what is registered, and by whom.

    Processors, providers, dialects and endpoints, each with its distribution and module; and the plugins that could
    not be used, with the reason.
    """
    from llmproxy_server.cli_plugins import plugins as run

    run()


@llmproxy.group()
def plugin() -> None:
    """Write a plugin of your own."""


@plugin.command()
@click.argument("name")
def new(name: str) -> None:
    """
    Make the folder llmproxy-NAME: a processor that works, its tests, a configuration to try it with.

    NAME becomes the processor's type; nothing that exists is changed.
    """
    from llmproxy_server.cli_plugin_new import new as run

    run(name)


@llmproxy.command()
def schema() -> None:
    """Print the JSON Schema of the configuration file, for editors."""
    from llmproxy_server.cli_schema import schema as run

    run()


def main() -> int:
    """Run the command of this process's arguments; gives its exit code. Nothing is raised."""
    _open_what_is_closed()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # an old locale cannot say every character
    try:
        return _guarded()
    finally:
        try:
            sys.stderr.flush()
        except OSError:  # what was not said to a full disk is no reason to end with another code
            _silence(sys.stderr)


def _guarded() -> int:
    try:
        return _run()
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.ENOSPC, errno.EIO):
            return _internal(error)
        _silence(sys.stdout)
        if error.errno == errno.EPIPE:
            _silence(sys.stderr)  # which of the two is gone, the error does not say
            return ExitCode.BROKEN_PIPE
        mention(f"llmproxy: the output cannot be written: {error.strerror}")
        return ExitCode.NO_OUTPUT
    except (KeyboardInterrupt, SystemExit):
        raise  # the second is a shell's completion, done
    except ImportError as error:
        return _not_there(error)
    except BaseException as error:  # noqa: BLE001 - the last seam: a person gets a sentence, and a traceback on demand
        return _internal(error)


def _open_what_is_closed() -> None:
    """Lead standard descriptors that are closed nowhere: a socket would take the place of one, and get the log."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it takes the lowest number that is free
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def _run() -> int:
    if "_LLMPROXY_COMPLETE" in os.environ:  # a shell asks for completions
        llmproxy.main(prog_name="llmproxy")
    code: int = ExitCode.OK
    try:
        # Not `llmproxy.main`: it ends with 1, which is `check`'s word for problems, when nobody reads the output.
        with llmproxy.make_context("llmproxy", sys.argv[1:]) as context:
            try:
                llmproxy.invoke(context)
            except SystemExit as error:
                raise RuntimeError("a plugin tried to end the process") from error
    except (KeyboardInterrupt, click.Abort) as ended:
        return ExitCode.OK if _is_sigterm(ended) else ExitCode.INTERRUPTED
    except click.exceptions.Exit as end:
        code = end.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    if sys.stdout is not None:
        sys.stdout.flush()
    return code


def _is_sigterm(ended: BaseException) -> bool:
    from llmproxy_server.signals import Terminated  # only where it was raised is it there already

    return isinstance(ended, Terminated)


def _silence(stream: IO[str]) -> None:
    """Let *stream* go nowhere: the interpreter flushes it at its end, and would complain again."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, stream.fileno())
    os.close(nothing)


def _not_there(error: ImportError) -> int:
    from llmproxy_server.missing import advice

    if (told := advice(error)) is None:
        return _internal(error)
    mention(f"llmproxy: {told}")
    return ExitCode.CANNOT


def _internal(error: BaseException) -> int:
    name = type(error).__name__
    mention(f"llmproxy: internal error ({name}): a mistake in llmproxy or in a plugin; please report it.")
    if os.environ.get("PROXY_API_DEBUG", "").lower() in ("1", "true", "yes", "on"):
        mention("".join(traceback.format_exception(error)))
    else:
        mention(faint("Run it again with PROXY_API_DEBUG=true to see where it happened."))
    return ExitCode.INTERNAL


__all__ = ["llmproxy", "main"]
