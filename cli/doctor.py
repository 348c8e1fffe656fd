"""``kernloom doctor``: does every part work here? It tries each rather than looking at names."""

from __future__ import annotations

import asyncio
from dataclasses import asdict

import click

from ..kernel.errors import KernloomError
from .checks import CHECKS, Finding
from .commands import Command
from .screen import Screen, table

_MARKS = {"ok": ("ok", "good"), "note": ("--", "dim"), "warn": ("!!", "warn"), "broken": ("XX", "bad")}


@click.command(cls=Command)
@click.option("--online", is_flag=True, help="Also ask the configured model over the network.")
@click.pass_obj
def doctor(screen: Screen, online: bool) -> int:
    """Try every part and say what is broken.

    Exits with 1 if something is broken. Without --online nothing leaves this machine.
    """
    findings = asyncio.run(_examine(screen, online))
    broken = sum(finding.status == "broken" for finding in findings)
    rows = [_row(screen, finding) for finding in findings]
    verdict = f"{broken} broken" if broken else "Everything that was tried works."
    screen.result(
        {"findings": [asdict(finding) for finding in findings], "broken": broken},
        f"{table(rows)}\n\n{verdict}",
    )
    return 1 if broken else 0


async def _examine(screen: Screen, online: bool) -> list[Finding]:
    """Every check by itself: what breaks one is its finding, and the next goes on."""
    findings: list[Finding] = []
    for name, check in CHECKS.items():
        screen.progress(f"trying {name} …")
        try:
            findings += [finding async for finding in check(screen, online)]
        except KernloomError as exc:
            findings.append(Finding(name, "broken", f"{exc.code}: {exc.message}", exc.hint or ""))
        except Exception as exc:  # whatever a part raises is what the doctor was asked to find
            findings.append(Finding(name, "broken", f"{type(exc).__name__}: {exc}"))
    return findings


def _row(screen: Screen, finding: Finding) -> list[str]:
    mark, style = _MARKS[finding.status]
    fix = f" -> {finding.fix}" if finding.fix else ""
    return [finding.part, screen.paint(mark, style), f"{finding.said}{fix}"]
