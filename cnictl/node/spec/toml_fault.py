"""Explain why a text is not TOML: the line, what is wrong with it, and how to fix common mistakes. Pure."""

import re

from tomlkit.exceptions import TOMLKitError

_LONGEST = 1000
"""The most characters of a line that is checked for common mistakes."""
_CURLY = "\u201c\u201d\u201e\u201f\u2018\u2019\u201a\u00ab\u00bb"
_KEY = r"(?P<key>[A-Za-z0-9_.-]+)\s*"
_MISTAKES = (
    (r"(?:;|//)+(?P<rest>.*)", "comments begin with #", "#{rest}"),
    (r"(?P<open>\[\[?)(?P<rest>[^\s\[\]#]+)\]?", "its brackets don't match", "{open}{rest}{close}"),
    (rf"{_KEY}=?\s*(?:#.*)?", "{key!r} has no value", ""),
    (rf"{_KEY}:\s*(?P<value>[^=]+)", "use '=' instead of ':'", "{key} = {quoted}"),
    (rf"{_KEY}\s(?P<value>[^=]+)", "there is no '=' after the key", "{key} = {quoted}"),
    (rf"{_KEY}=\s*(?i:true|yes|on)\s*(?:#.*)?", "this value must be true or false", "{key} = true"),
    (rf"{_KEY}=\s*(?i:false|no|off)\s*(?:#.*)?", "this value must be true or false", "{key} = false"),
    (rf"{_KEY}=\s*(?![+-]?\d+\s*$)(?P<value>[^\s\"'\[{{#].*)", "the value needs quotes", "{key} = {quoted}"),
    (rf"{_KEY}=\s*(?P<value>\"[^\"]*|'[^']*)", "the quote after the value is missing", "{key} = {quoted}"),
    (rf"{_KEY}=\s*(?P<value>[\"'][^\"']*[\"'],.*)", "several values need brackets", "{key} = {quoted}"),
    (rf"{_KEY}=\s*(?P<value>\[[^\]#]+)", "a ']' is missing", "{key} = {value}]"),
)
"""The pattern of a wrong line, what is wrong with it, and the corrected line. The first pattern that matches counts."""


def explain(text: str, error: TOMLKitError) -> tuple[str, str]:
    """Return what is wrong, beginning with `line 3: `, and the hint, which may be empty."""
    lines = text.split("\n")
    number = min(max(int(getattr(error, "line", 0) or 0), 1), len(lines))
    twice = _twice(lines) if "already exists" in str(error) or "Redefinition" in str(error) else None
    if twice is not None:
        number, words = twice
        hint = "put both tables under one header, and remove one of two equal keys"
    else:
        start = _start_of_list(lines, number)
        ends_here = start == number or re.match(rf"\s*({_KEY}=.*)?$", lines[start])
        mistake = _common_mistake(lines[start - 1].strip()) if ends_here else ("a ']' is missing", "")
        words, hint = mistake or (_rest(lines[start - 1], error), "")
        number = start
    line = lines[number - 1].strip()
    return f"line {number}: {words}: {line if len(line) <= 120 else f'{line[:119]}…'}", hint


def _common_mistake(line: str) -> tuple[str, str] | None:
    """Return what is wrong with a line and how to write it; None if it is not a common mistake."""
    if any(letter in line for letter in _CURLY):
        return "the quotes have to be straight", re.sub(f"[{_CURLY}]", '"', line)
    for pattern, words, hint in _MISTAKES if len(line) < _LONGEST else ():
        match = re.fullmatch(pattern, line)
        if match is not None:
            parts = match.groupdict()
            parts |= {"close": "]" * len(parts.get("open", "")), "quoted": _quoted(parts.get("value", ""))}
            return words.format(**parts), hint.format(**parts)
    return None


def _rest(line: str, error: TOMLKitError) -> str:
    rest = line[int(getattr(error, "col", 0) or 0) :].strip()
    return f"unexpected text {rest!r}" if rest else "the line ends too early"


def _twice(lines: list[str]) -> tuple[int, str] | None:
    """Return the line that repeats a key or a table header, and in words where the first one is."""
    table, seen = "", dict[str, int]()
    for number, line in enumerate(lines, 1):
        for inline in re.findall(r"\{([^{}]*)\}", line) if len(line) < _LONGEST else ():
            keys = re.findall(r"(?:^|,)\s*[\"']?([A-Za-z0-9_-]+)[\"']?\s*=", inline)
            equal = [name for name in keys if keys.count(name) > 1]
            if equal:
                return number, f"{equal[0]!r} is set twice"
        header = re.fullmatch(r"\s*\[(\[?)\s*([^\[\]#]+?)\s*\]+\s*(?:#.*)?", line)
        key = re.match(rf"\s*{_KEY}=", line)
        if header is not None:
            table, name = f"{header[2]} of line {number}" if header[1] else header[2], f"table {header[2]!r}"
            if header[1]:
                continue
        elif key is not None:
            name = repr(key["key"])
        else:
            continue
        place = name if header is not None else f"{table} {name}"
        if place in seen:
            return number, f"{name} is already on line {seen[place]}"
        seen[place] = number
    return None


def _start_of_list(lines: list[str], number: int) -> int:
    """Return the line, this one or one above it, that begins a list that this line does not end."""
    for start in range(number, 0, -1):
        if re.match(rf"\s*{_KEY}=\s*\[", lines[start - 1]):
            through = "\n".join(lines[start - 1 : number])
            return start if through.count("[") > through.count("]") else number
    return number


def _quoted(value: str) -> str:
    """Return a value in quotes; several that are separated by commas as a list."""
    bare = value.partition("#")[0].strip().strip("\"'").strip()
    if "," in bare:
        return "[" + ", ".join(_quoted(part) for part in bare.split(",") if part.strip()) + "]"
    return f'"{bare}"'
