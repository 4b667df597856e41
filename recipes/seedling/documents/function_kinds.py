# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E501, SIM905 - tables of wordings read better unbroken
"""The kinds of short functions that are taught: names, docstrings, bodies, and what is right.

`{a}`, `{b}`, `{c}` are the arguments and `{k}`, `{m}` constants. `right` is written independently
of the body: the tests of a function come from it, so a wrong body cannot confirm itself.
Held-out functions are of the same kinds, under other names, arguments, constants and docstrings.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from recipes.seedling.phrases import Phrases

Inputs = Callable[[random.Random], tuple[Any, ...]]


@dataclass(frozen=True)
class FunctionKind:
    """One kind; `roles` name the argument pools, `constants` the bounds of `{k}` and `{m}`."""

    name: str
    names: Phrases
    roles: tuple[str, ...]
    docs: Phrases
    body: str
    right: Callable[..., Any]
    inputs: Inputs
    constants: tuple[tuple[int, int], ...] = ()
    returns: str = "Any"


def _ints(rng: random.Random) -> tuple[list[int]]:
    return ([rng.randint(-20, 40) for _ in range(rng.randint(2, 7))],)


def _some(rng: random.Random) -> tuple[list[int]]:
    return ([rng.randint(1, 9) for _ in range(rng.randint(3, 8))],)


def _text(rng: random.Random) -> tuple[str]:
    words = "apple river Stone level Noon green radar tea kayak Moon open data".split()
    return (" ".join(rng.choice(words) for _ in range(rng.randint(1, 4))),)


def _word(rng: random.Random) -> tuple[str]:
    return (rng.choice("level radar stone noon river kayak Anna apple otto tree".split()),)


def _words(rng: random.Random) -> tuple[list[str]]:
    words = "apple fig river a stone sky tea moonlight pear oak".split()
    return (rng.sample(words, rng.randint(2, 6)),)


def _number(rng: random.Random) -> tuple[int]:
    return (rng.randint(-30, 60),)


def _small(rng: random.Random) -> tuple[int]:
    return (rng.randint(0, 9),)


def _positive(rng: random.Random) -> tuple[int]:
    return (rng.randint(1, 60),)


def _pair(rng: random.Random) -> tuple[int, int]:
    return (rng.randint(1, 60), rng.randint(1, 60))


def _triple(rng: random.Random) -> tuple[int, int, int]:
    return (rng.randint(-30, 60), rng.randint(-10, 5), rng.randint(10, 30))


def _nested(rng: random.Random) -> tuple[list[list[int]]]:
    return (
        [[rng.randint(0, 9) for _ in range(rng.randint(0, 3))] for _ in range(rng.randint(1, 4))],
    )


def _two_lists(rng: random.Random) -> tuple[list[int], list[int]]:
    count = rng.randint(2, 5)
    return ([rng.randint(0, 9) for _ in range(count)], [rng.randint(0, 9) for _ in range(count)])


def _list_and_number(rng: random.Random) -> tuple[list[int], int]:
    return ([rng.randint(0, 9) for _ in range(rng.randint(3, 8))], rng.randint(0, 9))


def _mapping(rng: random.Random) -> tuple[dict[str, int]]:
    return ({key: rng.randint(0, 99) for key in rng.sample("abcdefgh", rng.randint(1, 4))},)


def _prime(n: int) -> bool:
    return n > 1 and all(n % d for d in range(2, math.isqrt(n) + 1))


def _fibonacci(n: int) -> int:
    return n if n < 2 else _fibonacci(n - 1) + _fibonacci(n - 2)


KINDS: tuple[FunctionKind, ...] = (
    FunctionKind("sum", Phrases(("total", "sum_[all|list|values|up|items]", "add_[all|up|values]", "total_of[|_list]", "get_sum"), ("sum_of_list", "list_total", "add_items")), ("list",),
        Phrases(("Return the sum of {a}.", "Add up [all |]{a}.", "[Compute|Calculate] the [sum|total] of {a}.", "Sum [all|the] [numbers|values] in {a}."), ("Give the total of all {a}.", "The sum of the numbers in {a}.")),
        "return sum({a})", lambda v: math.fsum(v), _ints, returns="int"),
    FunctionKind("mean", Phrases(("mean", "average", "mean_of[|_list]", "[get|compute|calc]_[mean|average]", "avg"), ("average_of", "list_mean", "find_average")), ("list",),
        Phrases(("Return the [mean|average] of {a}.", "[Compute|Calculate] the [mean|average] of {a}.", "[Mean|Average] of the [numbers|values] in {a}."), ("Give the average of all {a}.", "The mean value of {a}.")),
        "return sum({a}) / len({a})", lambda v: math.fsum(v) / len(v), _ints, returns="float"),
    FunctionKind("largest", Phrases(("largest", "biggest", "maximum", "[find|get]_[max|largest|biggest]", "max_of"), ("largest_of", "list_maximum", "greatest")), ("list",),
        Phrases(("Return the [largest|biggest|greatest] [value|number|element] [in|of] {a}.", "[Find|Get] the [maximum|largest value] [of|in] {a}.", "Maximum of {a}."), ("Give the biggest of all {a}.", "The maximum value in {a}.")),
        "return max({a})", lambda v: sorted(v)[-1], _ints, returns="int"),
    FunctionKind("smallest", Phrases(("smallest", "lowest", "minimum", "[find|get]_[min|smallest|lowest]", "min_of"), ("smallest_of", "list_minimum", "least")), ("list",),
        Phrases(("Return the [smallest|lowest|least] [value|number|element] [in|of] {a}.", "[Find|Get] the [minimum|smallest value] [of|in] {a}.", "Minimum of {a}."), ("Give the lowest of all {a}.", "The minimum value in {a}.")),
        "return min({a})", lambda v: sorted(v)[0], _ints, returns="int"),
    FunctionKind("spread", Phrases(("spread", "value_range", "[get|find]_range", "range_of", "max_minus_min"), ("spread_of", "list_range")), ("list",),
        Phrases(("Return the difference between the largest and smallest of {a}.", "[Compute|Get] the [range|spread] of {a}: maximum minus minimum.", "Largest minus smallest of {a}."), ("The maximum of {a} minus the minimum of {a}.", "Difference between maximum and minimum of {a}.")),
        "return max({a}) - min({a})", lambda v: sorted(v)[-1] - sorted(v)[0], _ints, returns="int"),
    FunctionKind("evens", Phrases(("[filter|keep|get|only|find]_even[|s]", "evens", "even_[numbers|values|only]"), ("select_even", "evens_of", "even_items")), ("list",),
        Phrases(("Return [only |]the even [numbers|values] [of|in] {a}.", "[Keep|Get|Filter] the even [numbers|values] [of|in|from] {a}.", "Even numbers of {a} as a list."), ("All even values from {a}.", "Give the list of even numbers in {a}.")),
        "return [x for x in {a} if x % 2 == 0]", lambda v: list(filter(lambda x: x / 2 == x // 2, v)), _ints, returns="list"),
    FunctionKind("odds", Phrases(("[filter|keep|get|only|find]_odd[|s]", "odds", "odd_[numbers|values|only]"), ("select_odd", "odds_of", "odd_items")), ("list",),
        Phrases(("Return [only |]the odd [numbers|values] [of|in] {a}.", "[Keep|Get|Filter] the odd [numbers|values] [of|in|from] {a}.", "Odd numbers of {a} as a list."), ("All odd values from {a}.", "Give the list of odd numbers in {a}.")),
        "return [x for x in {a} if x % 2 == 1]", lambda v: list(filter(lambda x: x / 2 != x // 2, v)), _ints, returns="list"),
    FunctionKind("positives", Phrases(("[filter|keep|get|only|find]_positive[|s]", "positives", "positive_[numbers|values|only]"), ("select_positive", "positives_of")), ("list",),
        Phrases(("Return [only |]the positive [numbers|values] [of|in] {a}.", "[Keep|Get|Filter] the positive [numbers|values] [of|in|from] {a}.", "Positive numbers of {a} as a list."), ("All positive values from {a}.", "Give the list of positive numbers in {a}.")),
        "return [x for x in {a} if x > 0]", lambda v: list(filter(lambda x: abs(x) == x and x, v)), _ints, returns="list"),
    FunctionKind("above", Phrases(("above[|_limit]", "[filter|keep|get]_[above|large|greater|big]", "over_[limit|threshold]"), ("select_above", "larger_ones")), ("list",),
        Phrases(("Return the [numbers|values] [of|in] {a} [greater|larger] than {k}.", "[Keep|Get|Filter] the [numbers|values] [of|in] {a} [above|over] {k}.", "[Numbers|Values] in {a} that are [greater than|above] {k}."), ("All {a} that are larger than {k}.", "Give the list of {a} above {k}.")),
        "return [x for x in {a} if x > {k}]", lambda v, k: list(filter(lambda x: x >= k + 1, v)), _ints, ((1, 25),), "list"),
    FunctionKind("below", Phrases(("below[|_limit]", "[filter|keep|get]_[below|small|smaller|less]", "under_[limit|threshold]"), ("select_below", "smaller_ones")), ("list",),
        Phrases(("Return the [numbers|values] [of|in] {a} [less|smaller] than {k}.", "[Keep|Get|Filter] the [numbers|values] [of|in] {a} [below|under] {k}.", "[Numbers|Values] in {a} that are [less than|below] {k}."), ("All {a} that are smaller than {k}.", "Give the list of {a} below {k}.")),
        "return [x for x in {a} if x < {k}]", lambda v, k: list(filter(lambda x: x + 1 <= k, v)), _ints, ((1, 25),), "list"),
    FunctionKind("count_above", Phrases(("count_[above|over|greater|large]", "how_many_[above|over]", "number_above"), ("count_larger", "above_count")), ("list",),
        Phrases(("Count the [numbers|values] [of|in] {a} [greater|larger] than {k}.", "Return how many [of|in] {a} are [above|over] {k}.", "[How many|Count how many] {a} are greater than {k}."), ("The number of {a} that are larger than {k}.", "Count all {a} above {k}.")),
        "return sum(1 for x in {a} if x > {k})", lambda v, k: len([x for x in v if not x <= k]), _ints, ((1, 25),), "int"),
    FunctionKind("scale", Phrases(("scale[|_all|_list]", "multiply_[all|each|list]", "times_all"), ("multiply_values", "scaled")), ("list",),
        Phrases(("[Multiply|Scale] [each|every] [number|value] [in|of] {a} by {k}.", "Return {a} with [each|every] [value|element] times {k}.", "[All|The] [numbers|values] of {a}, multiplied by {k}."), ("Give each of {a} multiplied by {k}.", "Every element of {a} times {k}.")),
        "return [x * {k} for x in {a}]", lambda v, k: [sum([x] * k) for x in v], _ints, ((2, 40),), "list"),
    FunctionKind("squares", Phrases(("squares", "square_[all|each|list]", "squared"), ("squares_of", "square_values")), ("list",),
        Phrases(("Return the squares of {a}.", "Square [each|every] [number|value] [in|of] {a}.", "[List|Get] the square of [each|every] [number|value] in {a}."), ("Give each of {a} squared.", "The squares of all {a}.")),
        "return [x * x for x in {a}]", lambda v: [x**2 for x in v], _ints, returns="list"),
    FunctionKind("sum_squares", Phrases(("sum_[of_|]squares", "square_sum", "total_squares"), ("squares_total", "sum_squared")), ("list",),
        Phrases(("Return the sum of [the |]squares of {a}.", "Add up the squares of [all |]{a}.", "[Compute|Get] the sum of squares of {a}."), ("Give the sum of the squares of all {a}.", "The squares of {a}, added up.")),
        "return sum(x * x for x in {a})", lambda v: sum([x**2 for x in v]), _ints, returns="int"),
    FunctionKind("product", Phrases(("product[|_of|_of_list]", "multiply_[together|up]", "get_product"), ("list_product", "product_all")), ("list",),
        Phrases(("Return the product of {a}.", "Multiply [all|the] [numbers|values] [in|of] {a} together.", "[Compute|Calculate] the product of [all |]{a}."), ("Give the product of all {a}.", "The numbers in {a} multiplied together.")),
        "result = 1\nfor x in {a}:\n    result *= x\nreturn result", lambda v: math.prod(v), _some, returns="int"),
    FunctionKind("vowels", Phrases(("count_vowels", "vowels", "vowel_count", "[number_of|num|how_many]_vowels"), ("vowels_in", "get_vowel_count")), ("text",),
        Phrases(("Count the vowels in {a}.", "Return [the number of|how many] vowels [in|of] {a}.", "[How many|Number of] vowels in {a}."), ("Give the number of vowels that {a} has.", "Count how many vowels {a} contains.")),
        'return sum(1 for c in {a}.lower() if c in "aeiou")', lambda s: sum(map(s.lower().count, "aeiou")), _text, returns="int"),
    FunctionKind("reverse", Phrases(("reverse[|_text|_string|_it]", "[backwards|reversed_text|flip_text]"), ("text_reversed", "turn_around")), ("text",),
        Phrases(("[Reverse|Turn around] {a}.", "Return {a} [reversed|backwards|in reverse order].", "[The|Return the] characters of {a} in reverse order."), ("Give {a} backwards.", "{a} with its characters reversed.")),
        "return {a}[::-1]", lambda s: "".join(reversed(s)), _text, returns="str"),
    FunctionKind("palindrome", Phrases(("is_[a_|]palindrome", "[check_|]palindrome", "same_backwards"), ("palindrome_test", "reads_backwards")), ("text",),
        Phrases(("Return True if {a} is a palindrome[|, ignoring case].", "[Check|Test] [if|whether] {a} [is a palindrome|reads the same backwards][|, ignoring case].", "Is {a} [a palindrome|the same backwards]?"), ("True when {a} reads the same backwards.", "Tell whether {a} is a palindrome.")),
        "{a} = {a}.lower()\nreturn {a} == {a}[::-1]", lambda s: all(p == q for p, q in zip(s.lower(), reversed(s.lower()), strict=True)), _word, returns="bool"),
    FunctionKind("factorial", Phrases(("factorial", "fact", "[get|compute|calc]_factorial", "n_factorial"), ("factorial_of", "find_factorial")), ("count",),
        Phrases(("Return [the factorial of {a}|{a} factorial|{a}!].", "[Compute|Calculate] the factorial of {a}.", "Factorial of {a}."), ("Give the factorial of {a}.", "The factorial of the number {a}.")),
        "result = 1\nfor i in range(2, {a} + 1):\n    result *= i\nreturn result", lambda n: math.factorial(n), _small, returns="int"),
    FunctionKind("fibonacci", Phrases(("fibonacci", "fib", "[get|nth|compute]_[fib|fibonacci]"), ("fibonacci_number", "find_fib")), ("count",),
        Phrases(("Return the {a}-th Fibonacci number.", "[Compute|Calculate] the Fibonacci number [with index|at position|number] {a}.", "Fibonacci number {a}[|, starting with 0 and 1]."), ("Give the Fibonacci number at index {a}.", "The Fibonacci number of {a}.")),
        "x, y = 0, 1\nfor _ in range({a}):\n    x, y = y, x + y\nreturn x", _fibonacci, _small, returns="int"),
    FunctionKind("clamp", Phrases(("clamp", "limit[|_value]", "[keep|put]_between", "bound"), ("clip", "clamped")), ("number", "low", "high"),
        Phrases(("[Limit|Clamp] {a} to the range [from |]{b} to {c}.", "Return {a} [limited to|kept between] {b} and {c}.", "Keep {a} between {b} and {c}."), ("{a}, but at least {b} and at most {c}.", "Give {a} clamped to {b} and {c}.")),
        "return max({b}, min({c}, {a}))", lambda x, low, high: low if x < low else high if x > high else x, _triple, returns="int"),
    FunctionKind("between", Phrases(("is_[between|in_range|inside]", "[in_range|between|within]"), ("lies_between", "inside_range")), ("number", "low", "high"),
        Phrases(("Return True if {a} is between {b} and {c}.", "[Check|Test] [if|whether] {a} [lies|is] between {b} and {c}.", "Is {a} [between|in the range from] {b} [and|to] {c}?"), ("True when {a} lies in the range {b} to {c}.", "Tell whether {a} is between {b} and {c}.")),
        "return {b} <= {a} <= {c}", lambda x, low, high: not (x < low or x > high), _triple, returns="bool"),
    FunctionKind("to_fahrenheit", Phrases(("[celsius_|c_|]to_fahrenheit", "fahrenheit[|_from_celsius]", "c_to_f"), ("convert_to_fahrenheit", "celsius_in_fahrenheit")), ("degrees",),
        Phrases(("Convert {a} from Celsius to Fahrenheit.", "Return {a} degrees Celsius in [degrees |]Fahrenheit.", "[Celsius to Fahrenheit|Convert Celsius to Fahrenheit]."), ("Give the Fahrenheit value of {a} Celsius.", "Change {a} from Celsius to degrees Fahrenheit.")),
        "return {a} * 9 / 5 + 32", lambda t: 1.8 * t + 32, _number, returns="float"),
    FunctionKind("to_celsius", Phrases(("[fahrenheit_|f_|]to_celsius", "celsius[|_from_fahrenheit]", "f_to_c"), ("convert_to_celsius", "fahrenheit_in_celsius")), ("degrees",),
        Phrases(("Convert {a} from Fahrenheit to Celsius.", "Return {a} degrees Fahrenheit in [degrees |]Celsius.", "[Fahrenheit to Celsius|Convert Fahrenheit to Celsius]."), ("Give the Celsius value of {a} Fahrenheit.", "Change {a} from Fahrenheit to degrees Celsius.")),
        "return ({a} - 32) * 5 / 9", lambda t: (t - 32) / 1.8, _number, returns="float"),
    FunctionKind("add_tax", Phrases(("add_[tax|vat]", "with_[tax|vat]", "[gross|gross_price|price_with_tax]"), ("tax_included", "plus_vat")), ("price",),
        Phrases(("[Add|Put] {k} percent [tax|VAT] [to|on] {a}.", "Return {a} [plus|with] {k} percent [tax|VAT].", "[Price|Amount] {a} [plus|with] {k} percent [tax|VAT]."), ("Give {a} including {k} percent tax.", "{a} with VAT of {k} percent added.")),
        "return {a} * (100 + {k}) / 100", lambda p, k: p + p * k / 100, _positive, ((3, 40),), "float"),
    FunctionKind("discount", Phrases(("[apply_|with_|]discount", "reduce[|_price]", "[discounted|sale_price]"), ("price_off", "cheaper")), ("price",),
        Phrases(("[Take|Subtract] {k} percent [off|from] {a}.", "Return {a} [less|minus|with a discount of] {k} percent.", "[Reduce|Lower] {a} by {k} percent."), ("Give {a} after {k} percent off.", "{a} reduced by {k} percent.")),
        "return {a} * (100 - {k}) / 100", lambda p, k: p - p * k / 100, _positive, ((3, 60),), "float"),
    FunctionKind("percent", Phrases(("percent[|age][|_of]", "[share|as_percent|get_percent]"), ("percentage_value", "part_in_percent")), ("part", "whole"),
        Phrases(("Return {a} as [a |][percentage|percent] of {b}.", "[How many|What] percent of {b} is {a}?", "[Compute|Get] the percentage that {a} is of {b}."), ("Give the percent that {a} is of {b}.", "The share of {a} in {b} in percent.")),
        "return {a} / {b} * 100", lambda a, b: 100 * a / b, _pair, returns="float"),
    FunctionKind("dedupe", Phrases(("dedupe[|_list]", "[unique|remove_duplicates|without_duplicates|drop_duplicates|distinct]"), ("unique_values", "strip_duplicates")), ("list",),
        Phrases(("[Remove|Drop] duplicates from {a}[| and keep the order|, keeping the order].", "Return {a} without duplicates[|, in order].", "[Unique|Distinct] [values|elements] of {a}[| in order of first appearance]."), ("Give each value of {a} only once, in order.", "{a} with its duplicates removed.")),
        "result = []\nfor x in {a}:\n    if x not in result:\n        result.append(x)\nreturn result", lambda v: list(dict.fromkeys(v)), _some, returns="list"),
    FunctionKind("flatten", Phrases(("flatten[|_list|_lists]", "[flat|join_lists|merge_lists]"), ("flattened", "lists_to_list")), ("nested",),
        Phrases(("Flatten {a}[| into one list].", "[Turn|Make] {a}[, a list of lists,|] into one [flat |]list.", "Return [all|the] elements of the lists in {a} as one list."), ("Give the list of lists {a} as one flat list.", "One list from all lists in {a}.")),
        "return [x for row in {a} for x in row]", lambda v: list(itertools.chain(*v)), _nested, returns="list"),
    FunctionKind("word_count", Phrases(("[count_words|word_count|words|num_words|number_of_words]",), ("words_in", "how_many_words")), ("text",),
        Phrases(("Count the words in {a}.", "Return [the number of|how many] words [in|of] {a}.", "[How many|Number of] words in {a}."), ("Give the number of words that {a} has.", "Count how many words {a} contains.")),
        "return len({a}.split())", lambda s: s.count(" ") + 1, _text, returns="int"),
    FunctionKind("longest", Phrases(("longest[|_word|_name|_string]", "[find|get]_longest"), ("longest_of", "long_word")), ("words",),
        Phrases(("Return the longest [word|string] [in|of] {a}.", "[Find|Get] the longest of {a}.", "Longest [word|string] in {a}."), ("Give the longest of all {a}.", "The word in {a} that is longest.")),
        "return max({a}, key=len)", lambda v: next(w for w in v if len(w) == max(map(len, v))), _words, returns="str"),
    FunctionKind("lengths", Phrases(("lengths[|_of]", "[word_lengths|get_lengths|all_lengths]"), ("lengths_list", "length_of_each")), ("words",),
        Phrases(("Return the lengths of {a}.", "[List|Get] the length of [each|every] [word|string] in {a}.", "Length of [each|every] [word|string] in {a}."), ("Give the length of each of {a}.", "The lengths of all words in {a}.")),
        "return [len(x) for x in {a}]", lambda v: list(map(len, v)), _words, returns="list"),
    FunctionKind("upper", Phrases(("[upper_all|all_upper|to_upper|shout|uppercase]",), ("make_upper", "uppercase_words")), ("words",),
        Phrases(("Return {a} in upper case.", "[Turn|Change] [each|every] [word|string] [in|of] {a} to upper case.", "[Make|Write] all {a} upper case."), ("Give each of {a} in upper case.", "All words of {a}, upper case.")),
        "return [x.upper() for x in {a}]", lambda v: list(map(str.upper, v)), _words, returns="list"),
    FunctionKind("join", Phrases(("join[|_words|_all|_with_comma]", "[comma_list|to_line|concat]"), ("joined", "words_to_text")), ("words",),
        Phrases(("Join {a} with [a comma and a space|commas and spaces].", "Return {a} as one string, [separated|joined] by a comma and a space.",), ("Give one string with {a} joined by a comma and a space.", "{a} in one string with a comma and a space between.")),
        'return ", ".join({a})', lambda v: "".join(w if not i else ", " + w for i, w in enumerate(v)), _words, returns="str"),
    FunctionKind("is_even", Phrases(("is_even", "even", "check_even", "even_number"), ("even_test", "divides_by_two")), ("number",),
        Phrases(("Return True if {a} is even.", "[Check|Test] [if|whether] {a} is [even|an even number].", "Is {a} even?"), ("True when {a} is an even number.", "Tell whether {a} is even.")),
        "return {a} % 2 == 0", lambda n: n // 2 * 2 == n, _number, returns="bool"),
    FunctionKind("divisible", Phrases(("is_divisible[|_by]", "[divisible|divides|is_multiple|multiple_of]"), ("divisible_test", "multiple_test")), ("number",),
        Phrases(("Return True if {a} is [divisible by|a multiple of] {k}.", "[Check|Test] [if|whether] {a} is [divisible by|a multiple of] {k}.", "Is {a} [divisible by|a multiple of] {k}?"), ("True when {a} is a multiple of {k}.", "Tell whether {a} is divisible by {k}.")),
        "return {a} % {k} == 0", lambda n, k: n // k * k == n, _number, ((3, 20),), "bool"),
    FunctionKind("is_prime", Phrases(("is_[a_|]prime", "[prime|check_prime|prime_number]"), ("prime_test", "has_no_divisor")), ("count",),
        Phrases(("Return True if {a} is [a |]prime[| number].", "[Check|Test] [if|whether] {a} is [a |]prime[| number].", "Is {a} [a |]prime[| number]?"), ("True when {a} is a prime.", "Tell whether {a} is prime.")),
        "if {a} < 2:\n    return False\nfor i in range(2, {a}):\n    if {a} % i == 0:\n        return False\nreturn True", _prime, _positive, returns="bool"),
    FunctionKind("sign", Phrases(("sign[|_of]", "[get_sign|signum]"), ("number_sign", "find_sign")), ("number",),
        Phrases(("Return [the sign of {a}: |]1 if {a} is positive, -1 if [it is |]negative, [else|otherwise] 0.", "[Get|Compute] the sign of {a}[| as 1, -1 or 0].", "Sign of {a}[|: 1, -1 or 0]."), ("Give the sign of {a} as -1, 0 or 1.", "The sign of the number {a}.")),
        "if {a} > 0:\n    return 1\nif {a} < 0:\n    return -1\nreturn 0", lambda n: (n > 0) - (n < 0), _number, returns="int"),
    FunctionKind("absolute", Phrases(("absolute[|_value]", "[abs_value|magnitude|without_sign]"), ("absolute_of", "make_positive")), ("number",),
        Phrases(("Return the absolute value of {a}.", "[Get|Compute] the absolute value of {a}.", "[Absolute value of {a}|{a} without its sign]."), ("Give {a} without its sign.", "The absolute value of the number {a}.")),
        "return abs({a})", lambda n: max(n, -n), _number, returns="int"),
    FunctionKind("difference", Phrases(("[difference|distance|gap|abs_difference]",), ("difference_of", "distance_between")), ("part", "whole"),
        Phrases(("Return the [absolute |]difference [between|of] {a} and {b}[| as a positive number].", "[Compute|Get] the distance between {a} and {b}.", "[Distance|Absolute difference] of {a} and {b}."), ("Give the distance of {a} and {b}.", "The absolute difference between {a} and {b}.")),
        "return abs({a} - {b})", lambda a, b: max(a, b) - min(a, b), _pair, returns="int"),
    FunctionKind("larger", Phrases(("[larger|bigger|max_of_two|greater_of_two]",), ("larger_of_two", "pick_larger")), ("part", "whole"),
        Phrases(("Return the [larger|bigger|greater] of {a} and {b}.", "[Which|Get the one that] is [larger|bigger|greater][:| of] {a} [or|and] {b}[|?]",), ("Give the bigger one of {a} and {b}.", "Out of {a} and {b}, the larger.")),
        "return max({a}, {b})", lambda a, b: a if a > b else b, _pair, returns="int"),
    FunctionKind("area", Phrases(("[area|rectangle_area|rect_area|surface]", "get_area"), ("area_of_rectangle", "find_area")), ("width", "height"),
        Phrases(("Return the area of a rectangle with [sides |]{a} and {b}.", "[Compute|Calculate] the area of a rectangle [of|from] {a} and {b}.", "Area of a rectangle, {a} times {b}."), ("Give the area of the rectangle {a} by {b}.", "The area that a rectangle of {a} and {b} has.")),
        "return {a} * {b}", lambda a, b: math.prod((a, b)), _pair, returns="int"),
    FunctionKind("perimeter", Phrases(("[perimeter|rectangle_perimeter|rect_perimeter|outline]", "get_perimeter"), ("perimeter_of_rectangle", "find_perimeter")), ("width", "height"),
        Phrases(("Return the perimeter of a rectangle with [sides |]{a} and {b}.", "[Compute|Calculate] the perimeter of a rectangle [of|from] {a} and {b}.", "Perimeter of a rectangle {a} by {b}."), ("Give the perimeter of the rectangle {a} by {b}.", "The perimeter that a rectangle of {a} and {b} has.")),
        "return 2 * ({a} + {b})", lambda a, b: a + b + a + b, _pair, returns="int"),
    FunctionKind("contains", Phrases(("[contains|has|has_value|is_in|includes]", "in_list"), ("contains_value", "list_has")), ("list", "target"),
        Phrases(("Return True if {a} contains {b}.", "[Check|Test] [if|whether] {b} is in {a}.", "Is {b} in {a}?"), ("True when {b} is one of {a}.", "Tell whether {a} contains {b}.")),
        "return {b} in {a}", lambda v, x: v.count(x) > 0, _list_and_number, returns="bool"),
    FunctionKind("occurrences", Phrases(("[count_value|occurrences|how_often|count_of|count_equal]",), ("occurrences_of", "times_found")), ("list", "target"),
        Phrases(("Count how [often|many times] {b} [is|appears|occurs] in {a}.", "Return [how often|how many times|the number of times] {b} [appears|occurs] in {a}.",), ("Give the number of times {b} is in {a}.", "How many times {b} appears in {a}.")),
        "return {a}.count({b})", lambda v, x: sum(1 for y in v if y == x), _list_and_number, returns="int"),
    FunctionKind("first", Phrases(("[first|first_element|get_first|head|first_item]",), ("first_of", "take_first")), ("list",),
        Phrases(("Return the first [element|value|item] of {a}.", "[Get|Find] the first [element|value|item] [of|in] {a}.", "First element of {a}."), ("Give the element of {a} that comes first.", "The first of all {a}.")),
        "return {a}[0]", lambda v: next(iter(v)), _ints, returns="int"),
    FunctionKind("last", Phrases(("[last|last_element|get_last|tail|last_item]",), ("last_of", "take_last")), ("list",),
        Phrases(("Return the last [element|value|item] of {a}.", "[Get|Find] the last [element|value|item] [of|in] {a}.", "Last element of {a}."), ("Give the element of {a} that comes last.", "The last of all {a}.")),
        "return {a}[-1]", lambda v: next(reversed(v)), _ints, returns="int"),
    FunctionKind("first_n", Phrases(("[first_few|take|first_n|head_of|top]",), ("take_few", "first_ones")), ("list",),
        Phrases(("Return the first {k} [elements|values|items] of {a}.", "[Get|Take] the first {k} [elements|values|items] [of|from] {a}.",), ("Give the first {k} of all {a}.", "The first {k} elements in {a}.")),
        "return {a}[:{k}]", lambda v, k: [x for i, x in enumerate(v) if i < k], _some, ((1, 9),), "list"),
    FunctionKind("sort_down", Phrases(("[sort_down|descending|sort_descending|reverse_sort|sorted_down]",), ("sort_high_to_low", "largest_first")), ("list",),
        Phrases(("Sort {a} [in descending order|from large to small|from high to low|with the largest first].", "Return {a} sorted [in descending order|from large to small|from high to low|with the largest first].",), ("Give {a} in descending order.", "{a} sorted with the largest first.")),
        "return sorted({a}, reverse=True)", lambda v: sorted(v)[::-1], _ints, returns="list"),
    FunctionKind("dot", Phrases(("[dot|dot_product|scalar_product|inner_product]",), ("dot_of", "vector_product")), ("list", "other"),
        Phrases(("Return the dot product of {a} and {b}.", "[Compute|Calculate] the dot product of {a} and {b}.", "Dot product of [the lists |]{a} and {b}."), ("Give the dot product of {a} with {b}.", "The dot product that {a} and {b} have.")),
        "return sum(x * y for x, y in zip({a}, {b}))", lambda v, w: sum(v[i] * w[i] for i in range(len(v))), _two_lists, returns="int"),
    FunctionKind("swap", Phrases(("[swap_keys|invert|invert_dict|swap_dict|flip_dict]",), ("inverted", "values_to_keys")), ("mapping",),
        Phrases(("Swap the keys and values of {a}.", "Return {a} with keys and values swapped.", "Invert {a}: values become keys."), ("Give {a} with values as keys.", "{a}, keys and values swapped.")),
        "return {{v: k for k, v in {a}.items()}}", lambda m: dict(zip(m.values(), m.keys(), strict=True)), _mapping, returns="dict"),
)  # fmt: skip
