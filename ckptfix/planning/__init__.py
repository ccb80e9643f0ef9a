"""Recipe x have x want -> Plan: every output tensor known before a byte is read."""

from __future__ import annotations

from ckptfix.planning.budget import default_budget
from ckptfix.planning.plan import Plan, make_plan
from ckptfix.planning.report import Report
from ckptfix.planning.table import Row, Step

__all__ = ["Plan", "Report", "Row", "Step", "default_budget", "make_plan"]
