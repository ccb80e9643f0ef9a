"""The documents of `check --json` and `plan --json`; `ckptfix schema report | plan` derives from them."""

from __future__ import annotations

from typing_extensions import TypedDict


class SpecDocument(TypedDict):
    """A shape and a dtype."""

    shape: list[int]
    dtype: str


class MissingDocument(SpecDocument):
    """A target key that nothing provides."""

    key: str
    nearest: list[str]
    hint: str | None


UnexpectedDocument = TypedDict(
    "UnexpectedDocument",
    {"key": str, "from": list[str], "shape": list[int], "dtype": str, "nearest": list[str]},
)


class PairDocument(TypedDict):
    """A key that both sides have, differently."""

    key: str
    have: SpecDocument
    want: SpecDocument


class CollisionDocument(TypedDict):
    """A key made twice; a rule of null is the checkpoint itself."""

    key: str
    rules: list[int | None]


class ErrorDocument(TypedDict):
    """A fault of the recipe."""

    code: str
    where: str | None
    message: str
    hint: str | None


class CoverageDocument(TypedDict):
    """Loaded over all target keys, and over all target elements: 0 to 1."""

    tensors: float
    params: float


class ReportDocument(TypedDict):
    """What `check --json` prints."""

    schema_version: int
    compatible: bool
    coverage: CoverageDocument
    loaded: list[str]
    filled: list[str]
    dropped: list[str]
    missing: list[MissingDocument]
    unexpected: list[UnexpectedDocument]
    mismatched: list[PairDocument]
    dtypes: list[PairDocument]
    collisions: list[CollisionDocument]
    errors: list[ErrorDocument]
    wrappers: list[str]
    notes: list[str]


OutputDocument = TypedDict("OutputDocument", {"from": list[str], "rule": int | None, "line": int | None, "how": str})


class PlanDocument(ReportDocument):
    """What `Plan.to_json` gives. `rule` counts from 1 and is null for a tensor that no rule touched."""

    outputs: dict[str, OutputDocument]


class WorkDocument(TypedDict):
    """Bytes of the output: runs of the source as they lie, such as are gathered, cast ones, computed ones."""

    copied: int
    gathered: int
    cast: int
    computed: int


class PlanAndWork(PlanDocument):
    """What `plan --json` prints."""

    work: WorkDocument
