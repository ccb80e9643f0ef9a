"""What every target scheme gives: the tensors that an architecture wants, and a way to build it.

A scheme is one file, named as the scheme, with a function `resolve(uri: TargetURI) -> Target`.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeGuard
from urllib.parse import unquote

from msgspec import Struct, field

from ckptfix.errors import TargetBuildError, UnknownTarget
from ckptfix.tensors import DType, Manifest, Shape, TensorSpec

if TYPE_CHECKING:
    import torch
    from torch.nn import Module


class TargetURI(Struct, frozen=True):
    """`scheme:body?key=value`, taken apart. Values are JSON where they parse as such, else text."""

    text: str
    scheme: str
    body: str
    query: Mapping[str, Any]  # JSON values

    @classmethod
    def parse(cls, text: str) -> TargetURI:
        """Take a URI apart. Raises UnknownTarget for a query that is none."""
        scheme, _, rest = text.partition(":")
        body, _, query = rest.partition("?")
        values: dict[str, Any] = {}
        for pair in filter(None, query.split("&")):
            name, equals, value = pair.partition("=")
            if not (name and equals):
                raise UnknownTarget(f"'{pair}' is no option", where=text, hint="write scheme:name?key=value&key=value")
            values[name] = _json_or_text(unquote(value))
        return cls(text, scheme, body, values)


_PYTHON = {"True": True, "False": False, "None": None}
"""What Python calls them; as texts they would all be true."""


def _json_or_text(value: str) -> object:
    if value in _PYTHON:
        return _PYTHON[value]
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value


class Target(Struct, frozen=True):
    """An architecture: what it wants, and `build(seed)`, which makes it on the CPU after `manual_seed(seed)`.

    `build` is None where only shapes are known, and `not_buildable` says why. `input_shape` is that of one
    sample, without the batch: [channels, height, width]. `notes` are for the user's eyes.
    """

    text: str
    manifest: Manifest
    build: Callable[[int], Module] | None = None
    not_buildable: str | None = None
    config: Mapping[str, object] = field(default_factory=dict)
    input_shape: Shape | None = None
    notes: tuple[str, ...] = ()

    def must_build(self, seed: int) -> Module:
        """Build the architecture. Raises TargetBuildError where only its shapes are known."""
        if self.build is None:
            raise TargetBuildError(
                f"cannot be built: {self.not_buildable}",
                where=self.text,
                hint="name the architecture: torchvision:..., timm:... or py:...",
            )
        return self.build(seed)


def module_target(
    text: str,
    make: Callable[[], Module],
    input_shape: Callable[[Module], Shape | None],
    config: Mapping[str, object] | None = None,
) -> Target:
    """Make a target of a constructor. It runs on the meta device; where it cannot, on the CPU, which is noted."""
    import torch

    notes: tuple[str, ...] = ()
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            module = make()
    except (Exception, SystemExit) as reason:  # noqa: BLE001  a constructor may raise anything on a strange device
        module = _build(text, make, 0)
        notes = (f"built on the CPU, since the meta device failed: {type(reason).__name__}: {_first_line(reason)}",)
    return Target(
        text=text,
        manifest=manifest_of(module),
        build=lambda seed: _build(text, make, seed),
        config=config or {},
        input_shape=input_shape(module),
        notes=notes,
    )


def live_target(module: Module) -> Target:
    """Make a target of a module that is in memory. What it builds are copies of that module, whatever the seed.

    A module of transformers brings its config.
    """
    return Target(
        text=type(module).__name__,
        manifest=manifest_of(module),
        build=lambda seed: _copy(module),
        config=_config_of(module),
    )


def _copy(module: Module) -> Module:
    """Copy a module. Raises TargetBuildError where something that it holds cannot be copied.

    torch copies no tensor that was computed with gradients, such as the weight that the old `weight_norm` sets before
    each forward pass: of these the numbers are copied.
    """
    held = (value for part in module.modules() for value in vars(part).values())
    computed = {id(value): value.detach().clone() for value in held if _is_computed(value)}
    try:
        return copy.deepcopy(module, computed)
    except Exception as error:  # whatever a module holds may raise anything
        raise TargetBuildError(
            f"the module cannot be copied: {type(error).__name__}: {_first_line(error)}",
            where=type(module).__name__,
            hint="name its factory instead, as py:package.module:factory",
        ) from error


def _is_computed(value: object) -> TypeGuard[torch.Tensor]:
    import torch

    return isinstance(value, torch.Tensor) and not value.is_leaf


def _config_of(module: Module) -> dict[str, object]:
    """Read the config that a module of transformers carries, under all names that it answers to."""
    config: Any = getattr(module, "config", None)
    if not hasattr(config, "to_dict"):
        return {}
    aliases = getattr(config, "attribute_map", {})
    return {**config.to_dict(), **{alias: getattr(config, alias, None) for alias in aliases}}


def _build(text: str, make: Callable[[], Module], seed: int) -> Module:
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # `torch.manual_seed` would seed every GPU's generator too
        try:
            return make()
        except (Exception, SystemExit) as error:  # a script that calls `sys.exit` must not end this one
            raise TargetBuildError(
                f"the constructor raised {type(error).__name__}: {_first_line(error)}",
                where=text,
                hint=_mend_options(text),
            ) from error


def _mend_options(text: str) -> str:
    """Say what to do about the options of a target: those that are no JSON are given to the constructor as text."""
    options = TargetURI.parse(text).query
    texts = [f"{name} is the text '{value}'" for name, value in options.items() if isinstance(value, str)]
    if texts:
        return f"check the options after '?': {', '.join(texts)}"
    return "check the options after '?'" if options else "options are given as ?name=value&name=value"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0]


def manifest_of(module: Module) -> Manifest:
    """Read shapes, owners and ties off a module. Works on any device, the meta device included."""
    import torch

    owners: dict[str, str] = {}
    kinds: dict[str, Literal["param", "buffer"]] = {}
    modules: dict[str, str] = {}
    identities: dict[int, list[str]] = {}
    for path, part in module.named_modules(remove_duplicate=False):
        name = type(part).__name__
        modules[path] = f"{name}({part.extra_repr()})"
        prefix = f"{path}." if path else ""
        for kind, tensors in (("param", part._parameters), ("buffer", part._buffers)):
            for leaf, tensor in tensors.items():
                if tensor is not None:
                    owners[prefix + leaf] = name
                    kinds[prefix + leaf] = "param" if kind == "param" else "buffer"
                    identities.setdefault(id(tensor), []).append(prefix + leaf)
    specs = {key: spec_of(value) for key, value in module.state_dict().items() if isinstance(value, torch.Tensor)}
    return Manifest(
        tensors=specs,
        owners={key: owners[key] for key in specs if key in owners},
        kinds={key: kinds[key] for key in specs if key in kinds},
        modules=modules,
        tied=tuple(
            group for keys in identities.values() if len(group := tuple(key for key in keys if key in specs)) > 1
        ),
    )


def spec_of(tensor: torch.Tensor) -> TensorSpec:
    """Give the shape and dtype of a torch tensor.

    Raises TargetBuildError for a dtype that no file format has, and for a lazy parameter that has no shape yet.
    """
    from torch.nn.parameter import is_lazy

    if is_lazy(tensor):
        raise TargetBuildError("a lazy parameter has no shape before the first forward pass", hint="give its size")
    name = str(tensor.dtype).removeprefix("torch.")
    dtype = DType.from_torch_name(name)
    if dtype is None:
        raise TargetBuildError(f"the dtype {name} has no place in a checkpoint")
    return TensorSpec(tuple(tensor.shape), dtype)
