"""What all entry points share: one line for what was wrong outside, and exit code 2."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

from sciffusion import resources
from sciffusion.atomic import MENDS
from sciffusion.errors import InputError

# Before PyTorch starts its threads: waiting threads spin for tens of microseconds, then sleep. Long
# spinning slows small networks down tenfold as soon as anything else runs on the machine; none at
# all costs a third of the speed where nothing does.
os.environ.setdefault("GOMP_SPINCOUNT", "30000")


def command(
    main: Callable[[Sequence[str]], None], help_text: str, arguments: Sequence[str] | None = None
) -> None:
    """Run an entry point and leave with its exit code: 0, 2 for wrong input, 130 for Ctrl-C."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if any(a in ("-h", "--help") for a in arguments):
        print(help_text.strip())
        sys.exit(0)
    try:
        main(arguments)
    except InputError as error:
        print(f"sciffusion: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("sciffusion: stopped", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        if error.errno not in MENDS:
            raise
        where = f" {error.filename}" if error.filename else ""
        print(f"sciffusion: {error.strerror}{where}; {MENDS[error.errno]}", file=sys.stderr)
        sys.exit(2)


def help_for(
    usage: str,
    groups: dict[str, list[str]],
    only: Sequence[str],
    by_domain: str | None = None,
) -> str:
    """The text of --help: usage, the config groups and their options, what each domain is asked."""
    lines = [usage.strip(), "", "Choices:"]
    lines += [f"  {name}={'|'.join(groups[name])}" for name in only if name in groups]
    for domain in groups[by_domain] if by_domain else ():
        text = resources.path("configs", f"{by_domain}/{domain}.yaml").read_text()
        lines += ["", f"Settings of domain={domain}:"]
        lines += [f"  {line}" for line in text.splitlines() if not line.startswith("# @")]
    lines += ["", "Any setting can be given as name=value, one inside a group as group.name=value."]
    return "\n".join(lines)
