"""Every error that ckptfix raises, each with a code, a place and what would mend it.

Four families fix the exit status: `Incompatible` 1, `InvalidCall` 2, `RefusedContent` 3, `AccessFailed` 4.
The docstring of a class is what `ckptfix explain CODE` prints.
"""

from __future__ import annotations

from typing import ClassVar

from msgspec import Struct


class Origin(Struct, frozen=True):
    """A place in a text that a user wrote: a file, its line (from 1) and the rule's op, where known."""

    file: str
    line: int | None = None
    op: str | None = None

    def __str__(self) -> str:
        return ": ".join(part for part in (f"{self.file}:{self.line}" if self.line else self.file, self.op) if part)


class CkptfixError(Exception):
    """Any failure that ckptfix reports: where it is, what is wrong, what would mend it."""

    code: ClassVar[str] = "CKF000"
    exit_code: ClassVar[int] = 1
    longest: ClassVar[int | None] = None
    """Characters of a message, of which a longer one loses its middle; None for any number."""

    def __init__(
        self,
        message: str,
        *,
        where: Origin | str | None = None,
        hint: str | None = None,
        parts: tuple[CkptfixError, ...] = (),
    ) -> None:
        if self.longest is not None and len(message) > self.longest:
            message = f"{message[: self.longest * 2 // 3]}...{message[-self.longest // 3 :]}"
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint
        self.parts = parts

    def __str__(self) -> str:
        """One line: place, fault, mend."""
        place = f"{self.where}: " if self.where else ""
        mend = f" ({self.hint})" if self.hint else ""
        return f"{place}{self.message}{mend}"

    def to_json(self) -> dict[str, str | None]:
        """Give the `error` object of a `--json` document."""
        return {
            "code": self.code,
            "where": str(self.where) if self.where else None,
            "message": self.message,
            "hint": self.hint,
        }


class Incompatible(CkptfixError):
    """The weights do not fit the architecture, or a proof of the result failed."""

    code = "CKF100"
    exit_code = 1


class IncompletePlan(Incompatible):
    """The plan leaves a target tensor without a source, or a source tensor without a use.

    Nothing is written. `ckptfix check` lists what is missing, unexpected and mismatched; a rule must account
    for each: `rename` or `copy` to give a key, `drop` to remove one, `fill` to make one.
    """

    code = "CKF101"


class VerificationFailed(Incompatible):
    """The written checkpoint does not hold what the plan promised, or does not run."""

    code = "CKF102"


class TrainingFailed(Incompatible):
    """The fine-tune did not prove the checkpoint: a non-finite or rising loss, or a frozen tensor that moved."""

    code = "CKF103"


class TiedConflict(Incompatible):
    """Two keys that the architecture ties to one tensor were given different bytes."""

    code = "CKF104"


class Unresolved(Incompatible):
    """No recipe is certain: of some target keys, names and shapes do not tell what makes them."""

    code = "CKF105"


class NonFinite(Incompatible):
    """A rule would make NaN or infinity of finite numbers: too large for a narrower dtype, or a sum that overflows.

    Nothing is written. What the source has itself, or a rule names (`fill` with `.inf`), passes.
    """

    code = "CKF106"


class InvalidCall(CkptfixError):
    """The call, the recipe or the target is wrong."""

    code = "CKF200"
    exit_code = 2


class RecipeSyntaxError(InvalidCall):
    """The recipe is not a YAML 1.2 or JSON document without aliases and duplicate keys."""

    code = "CKF201"


class RecipeSchemaError(InvalidCall):
    """A field of the recipe is unknown, missing or of the wrong type."""

    code = "CKF202"


class PatternError(InvalidCall):
    """A key pattern cannot be read or filled. See `ckptfix explain rename` for the pattern language."""

    code = "CKF203"


class UnmatchedPattern(InvalidCall):
    """A pattern matches no key. Correct it, or say `optional: true` where that is meant."""

    code = "CKF204"


class KeyCollision(InvalidCall):
    """Two rules, or two keys of one rule, make the same key. Drop one of them first."""

    code = "CKF205"


class LayoutError(InvalidCall):
    """A layout cannot be read, or does not fit the shape it is given."""

    code = "CKF206"


class RuleError(InvalidCall):
    """A rule cannot be applied to the tensors it selects."""

    code = "CKF207"


class UnknownVariable(InvalidCall):
    """A variable is defined nowhere: neither in `vars`, nor by `--var`, nor by the target's config."""

    code = "CKF208"


class PlanErrors(InvalidCall):
    """Several faults of one recipe, all found before anything was read or written."""

    code = "CKF209"


class UnknownTarget(InvalidCall):
    """The target's scheme, model name, module or file does not exist."""

    code = "CKF210"


class TargetBuildError(InvalidCall):
    """The target's constructor raised an error."""

    code = "CKF211"


class OutputExists(InvalidCall):
    """The output is already there. `--force` replaces it."""

    code = "CKF212"


class AmbiguousSource(InvalidCall):
    """The file holds several state dicts and none was chosen. Append `#PATH` to the file's name."""

    code = "CKF213"


class MissingDependency(InvalidCall):
    """An optional package is needed. Install the extra that the hint names."""

    code = "CKF214"


class UnsupportedOutput(InvalidCall):
    """The output format cannot hold what was asked for."""

    code = "CKF215"


class RefusedContent(CkptfixError):
    """The content of an input is refused."""

    code = "CKF300"
    exit_code = 3
    longest = 600  # it quotes names of the file, which may be of any length


class UnknownFormat(RefusedContent):
    """The file is none of the checkpoint formats that ckptfix reads."""

    code = "CKF301"


class TruncatedFile(RefusedContent):
    """The file ends before its own header says it does."""

    code = "CKF302"


class MalformedFile(RefusedContent):
    """The file contradicts itself or its format's rules."""

    code = "CKF303"


class LimitExceeded(RefusedContent):
    """The file would cost more memory or time to read than any sound checkpoint does."""

    code = "CKF304"


class NoTensors(RefusedContent):
    """The file is readable and holds no state dict."""

    code = "CKF305"


class CorruptTensor(RefusedContent):
    """The bytes of a tensor do not match the checksum or digest kept beside them."""

    code = "CKF306"


class AccessFailed(CkptfixError):
    """A source is not there, or reading or writing failed."""

    code = "CKF400"
    exit_code = 4


class SourceNotFound(AccessFailed):
    """The source file does not exist."""

    code = "CKF401"


class ReadFailed(AccessFailed):
    """The operating system refused to read a source, or the source changed while it was read."""

    code = "CKF402"


class WriteFailed(AccessFailed):
    """The system refused to write the output: permission, disk full, read-only; or another run is writing it.

    The old file is whole, and nothing is left beside it.
    """

    code = "CKF403"
