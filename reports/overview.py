"""Which claims hold at which scale: every claim of every table against every profile, at a glance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from reports.assemble import Report
from reports.table import Claim, Table


@dataclass(frozen=True)
class Scope:
    """A profile and, where something has run, the data it ran on."""

    profile: str
    data: str  # name and content, '' where nothing has run

    def shown(self, scopes: Iterable[Scope]) -> str:
        """The profile with the data's name; with its content too where another column has the same name."""
        if not self.data:
            return self.profile
        name = self.data.split()[0]
        alike = [scope for scope in scopes if scope.profile == self.profile and scope.data.split()[:1] == [name]]
        return f"{self.profile}, {name if len(alike) < 2 else self.data}"


@dataclass(frozen=True)
class Line:
    """One claim, with its outcome in words and the table it stands in for each scope that has one."""

    table: Table
    claim: Claim
    words: Mapping[Scope, str]
    claims: Mapping[Scope, tuple[Table, Claim]]


def overview(report: Report) -> tuple[list[Scope], list[Line]]:
    """The columns, in the order of the sweep's profiles, and a line for each claim."""
    scopes: dict[str, dict[Scope, None]] = {}  # an empty profile is a column only where the profile is empty for every table
    for table in report.every:
        scopes.setdefault(table.profile, {})[_scope(table)] = None
    columns = [scope for found in scopes.values() for scope in found if scope.data or all(not other.data for other in found)]
    lines: dict[tuple[str, str], tuple[Table, Claim, dict[Scope, tuple[Table, Claim]]]] = {}
    for table in report.every:
        for claim in table.claims:
            entry = lines.setdefault((table.id, claim.id), (table, claim, {}))
            entry[2][_scope(table)] = (table, claim)
    result = []
    for table, claim, found in lines.values():
        words = {}
        for scope in columns:
            at = found.get(scope) or found.get(Scope(scope.profile, ""))
            words[scope] = at[1].words if at else ""
        result.append(Line(table, claim, words, found))
    return columns, result


def _scope(table: Table) -> Scope:
    """Data sets of one name but other contents are told apart by the beginning of their content hash."""
    return Scope(table.profile, f"{table.data.name} {table.data.content[:6]}" if table.data else "")
