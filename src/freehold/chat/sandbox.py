# SPDX-License-Identifier: Apache-2.0
"""A Jinja environment in which a hostile template can neither escape nor exhaust the machine.

Templates come with model files, so they are untrusted programs. Jinja's immutable sandbox keeps
them from reaching Python; it does not stop `'a' * 10**9`, endless recursion or a list that holds
itself twice forty times over. Here every operation that can grow a value or take long passes a
`Budget`: the parsed template is rewritten so that loops, literals, slices, `~` and comparisons go
through methods of the environment, filters and calls are wrapped, and arithmetic is intercepted.

Knows Jinja's node types. Knows nothing about chat.
"""

from __future__ import annotations

import operator
import re
import string
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

from jinja2 import nodes, pass_context
from jinja2.exceptions import SecurityError, TemplateSyntaxError
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.runtime import Context, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from freehold.chat.budget import Budget, LimitExceeded
from freehold.chat.sandbox_filters import guarded_filters, guarded_tests, strftime_now

BUDGET: ContextVar[Budget] = ContextVar("template_budget")

# String methods that turn a short string into an unbounded one, or into bytes.
_NO_STR_METHODS = frozenset({"translate", "maketrans", "expandtabs", "encode", "format_map"})
_PADDING = frozenset({"ljust", "rjust", "center", "zfill"})
_MAX_INT_BITS = 4096
MAX_NODES = 20_000  # of the syntax tree; compiling takes 50 µs each, real templates have 1,000
_FORMAT_WIDTH = re.compile(r"\d{4,}|\*")
_FORBIDDEN = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)


class SafeNamespace(Namespace):
    """`namespace()`: not printable, so that one holding another cannot grow a string."""

    def __repr__(self) -> str:
        return "<Namespace>"


class GenerationTag(Extension):
    """`{% generation %}…{% endgeneration %}` marks the model's own words; here it only groups."""

    tags = {"generation"}  # noqa: RUF012 - Jinja declares it so

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class _Rewriter(NodeTransformer):
    """Send growing and looping constructs through the environment."""

    def generic_visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> nodes.Node:
        if isinstance(node, _FORBIDDEN):
            raise TemplateSyntaxError(
                f"{type(node).__name__.lower()} is not available in chat templates", node.lineno
            )
        return super().generic_visit(node, *args, **kwargs)

    def _hook(self, name: str, arguments: Sequence[nodes.Node], line: int) -> nodes.Call:
        function = nodes.EnvironmentAttribute(name, lineno=line)
        return nodes.Call(function, list(arguments), [], None, None, lineno=line)

    def visit_For(self, node: nodes.For) -> nodes.Node:
        static = sum(len(data.data) for data in node.find_all(nodes.TemplateData))
        self.generic_visit(node)
        size = nodes.Const(static, lineno=node.lineno)
        node.iter = self._hook("iterate", [node.iter, size], node.lineno)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return self._hook("tilde", node.nodes, node.lineno)

    def visit_List(self, node: nodes.List) -> nodes.Node:
        return self._container(node, node.items)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        return node if node.ctx != "load" else self._container(node, node.items)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:
        return self._container(node, [pair.value for pair in node.items])

    def _container(self, node: nodes.Expr, items: Sequence[nodes.Node]) -> nodes.Node:
        constant = all(isinstance(item, nodes.Const) for item in items)
        self.generic_visit(node)
        return node if constant else self._hook("made", [node], node.lineno)

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        node.expr = self._hook("noted", [node.expr], node.lineno)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        part = node.arg
        if not isinstance(part, nodes.Slice):
            return node
        nothing = nodes.Const(None, lineno=node.lineno)
        bounds = [part.start or nothing, part.stop or nothing, part.step or nothing]
        return self._hook("cut", [node.node, *bounds], node.lineno)


class _Formatter(string.Formatter):
    """`str.format` with attribute access through the sandbox and bounded widths."""

    def __init__(self, environment: TemplateEnvironment) -> None:
        self._environment = environment

    def get_field(self, field_name: str, args: Any, kwargs: Any) -> tuple[Any, Any]:
        first, rest = string._string.formatter_field_name_split(field_name)  # type: ignore[attr-defined]
        value = self.get_value(first, args, kwargs)
        for is_attribute, name in rest:
            lookup = self._environment.getattr if is_attribute else self._environment.getitem
            value = lookup(value, name)
        return value, first

    def format_field(self, value: Any, format_spec: str) -> Any:
        if _FORMAT_WIDTH.search(format_spec):
            raise LimitExceeded("a format width is too large")
        budget = BUDGET.get()
        if not format_spec or not isinstance(value, (int, float, str)):
            return budget.text(value)
        result = format(value, format_spec)
        budget.charge_text(result)
        return result


class TemplateEnvironment(ImmutableSandboxedEnvironment):
    """Every hook looks its budget up in `BUDGET`, which `render` sets."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[LoopControlExtension, GenerationTag],
            optimized=False,  # folding constants would run the template while compiling it
            finalize=_finalize,
            cache_size=0,
        )
        self.filters = guarded_filters(self.filters, BUDGET)
        tests: Any = self.tests  # typed by Jinja as functions of no signature
        self.tests = guarded_tests(tests, BUDGET)
        self.globals.pop("lipsum", None)
        self.globals.update(
            namespace=SafeNamespace, raise_exception=_raise_exception, strftime_now=strftime_now
        )

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        if sum(1 for _ in tree.find_all(nodes.Node)) > MAX_NODES:
            raise LimitExceeded(f"it has more than {MAX_NODES} parts")
        rewritten = _Rewriter().visit(tree)
        assert isinstance(rewritten, nodes.Template)
        rewritten.set_environment(self)
        return rewritten

    # -- hooks the rewritten template calls --------------------------------------------------

    def iterate(self, values: Any, static: int) -> Iterator[Any]:
        """A `for` loop's values; `static` characters of literal text per round."""
        budget = BUDGET.get()
        for value in values:
            budget.tick()
            budget.charge(static)
            yield value

    def tilde(self, *values: Any) -> str:
        """`a ~ b`."""
        budget = BUDGET.get()
        return budget.joined("", [budget.text(value) for value in values])

    def made(self, value: Any) -> Any:
        """A list, tuple or dict written in the template."""
        BUDGET.get().weigh_new(value)
        return value

    def noted(self, value: Any) -> Any:
        """The left side of a comparison: comparing long values takes time."""
        BUDGET.get().tick()
        return value

    def cut(self, value: Any, start: Any, stop: Any, step: Any) -> Any:
        """`value[start:stop:step]`."""
        result = value[start:stop:step]
        BUDGET.get().weigh_part(result, value)
        return result

    def concat(self, parts: Iterable[str]) -> str:
        """What macros, set blocks and filter blocks make of their pieces."""
        return BUDGET.get().joined("", list(parts))

    # -- what the sandbox already lets us intercept --------------------------------------------

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(__obj, types.MethodType) and __obj.__self__ is __self:
            return __obj(*args)  # one of the hooks above
        budget = BUDGET.get()
        budget.tick()
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, str):
            args = _checked_method(budget, owner, __obj.__name__, args)
        with budget.nested():
            result = super().call(__context, __obj, *args, **kwargs)
        budget.weigh_new(result)
        return result

    def call_binop(self, context: Context, operator_name: str, left: Any, right: Any) -> Any:
        budget = BUDGET.get()
        budget.tick()
        result = _BINOPS[operator_name](budget, left, right)
        budget.weigh_new(result)
        return result

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, str) and attr in _NO_STR_METHODS:
            return False
        if isinstance(obj, (int, float, complex, bytes, bytearray)):
            return False
        return super().is_safe_attribute(obj, attr, value)

    def unsafe_undefined(self, obj: Any, attribute: str) -> Undefined:
        raise SecurityError(
            f"access to attribute {attribute!r} of {type(obj).__name__!r} object is unsafe."
        )

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        methods = (types.BuiltinMethodType, types.MethodType)  # the latter for Markup
        if not isinstance(value, methods) or value.__name__ != "format":
            return None
        text = value.__self__
        if not isinstance(text, str):
            return None

        def formatted(*args: Any, **kwargs: Any) -> str:
            return _Formatter(self).vformat(text, args, kwargs)

        return formatted


@pass_context  # also keeps Jinja from printing constants while it compiles
def _finalize(context: Context, value: Any) -> str:
    del context
    budget = BUDGET.get()
    budget.tick()
    text = budget.text(value)
    budget.charge_text(text)
    return text


def _raise_exception(message: Any = "") -> None:
    raise TemplateRefusal(BUDGET.get().text(message)[:500])


class TemplateRefusal(Exception):
    """The template called `raise_exception`."""


def _checked_method(budget: Budget, text: str, name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Refuse a string method call whose result would be too long, before it is made."""
    if name in _PADDING and args and isinstance(args[0], int):
        budget.allow(args[0])
    elif name == "replace" and len(args) >= 2 and all(isinstance(a, str) for a in args[:2]):
        budget.allow_replace(text, args[0], args[1])
    elif name == "join" and args and isinstance(args[0], Iterable):
        parts = list(args[0]) if not isinstance(args[0], (list, tuple)) else args[0]
        budget.allow(
            sum(len(p) for p in parts if isinstance(p, str)) + len(text) * max(0, len(parts) - 1)
        )
        return (parts,)
    return args


def _add(budget: Budget, left: Any, right: Any) -> Any:
    for kind in (str, list, tuple):
        if isinstance(left, kind) and isinstance(right, kind):
            budget.allow(len(left) + len(right))
    return left + right


def _multiply(budget: Budget, left: Any, right: Any) -> Any:
    for sequence, count in ((left, right), (right, left)):
        if isinstance(sequence, (str, list, tuple)) and isinstance(count, int):
            budget.allow(len(sequence) * max(0, count))
            return sequence * count
    _check_bits(_bits(left) + _bits(right))
    return left * right


def _power(budget: Budget, left: Any, right: Any) -> Any:
    del budget
    if isinstance(left, int) and isinstance(right, int):
        _check_bits(_bits(left) * abs(right))
    return left**right


def _modulo(budget: Budget, left: Any, right: Any) -> Any:
    if not isinstance(left, str):
        return operator.mod(left, right)
    specs = left.count("%")
    if any(_FORMAT_WIDTH.search(s) for s in re.findall(r"%(?:\([^)]*\))?([-#0 +.*\d]*)", left)):
        raise LimitExceeded("a format width is too large")
    values = right if isinstance(right, tuple) else (right,)
    weight = sum(budget.weigh(value) for value in values)
    budget.allow(len(left) + weight * (specs if isinstance(right, Mapping) else 1))
    return left % right


def _bits(value: Any) -> int:
    return value.bit_length() if isinstance(value, int) else 0


def _check_bits(bits: int) -> None:
    if bits > _MAX_INT_BITS:
        raise LimitExceeded(f"a number has more than {_MAX_INT_BITS} bits")


_BINOPS: dict[str, Callable[[Budget, Any, Any], Any]] = {
    "+": _add,
    "*": _multiply,
    "**": _power,
    "%": _modulo,
}
