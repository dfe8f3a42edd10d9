"""Explain why a text is not TOML: the line, what is wrong with it, and how to write it. Pure."""

import re

from tomlkit.exceptions import TOMLKitError

_KEY = r"[A-Za-z0-9_.\"'-]+"
_ASSIGNED = re.compile(rf"\s*({_KEY})\s*=\s*(.*)")
_LETTERED = {"true": "true", "yes": "true", "on": "true", "false": "false", "no": "false", "off": "false"}
"""Common spellings of TOML's true and false."""
_CURLY = "\u201c\u201d\u201e\u201f\u2018\u2019\u201a\u00ab\u00bb"
_EXISTS = re.compile(r'Key "(.*)" already exists')


def explain(text: str, error: TOMLKitError) -> tuple[str, str]:
    """Return what is wrong, as `line 3: …`, and the hint, which may be empty."""
    lines = re.split(r"\r\n|\n|\r", text)
    number = min(max(int(getattr(error, "line", 0) or 0), 1), len(lines))
    if "\r" in text.replace("\r\n", ""):
        words = "a line ends with a carriage return alone, as in files from old Macs"
        return f"line {text[: text.replace(chr(13) + chr(10), '  ').index(chr(13))].count(chr(10)) + 1}: {words}", (
            "save the file with Unix line ends"
        )
    fault = _twice(lines, error) or _goes_on(lines, number) or _at(lines, number)
    if fault is not None:
        number, words, hint = fault
    else:
        column = int(getattr(error, "col", 0) or 0)
        rest = lines[number - 1][column:].strip()
        words, hint = (f"nothing is expected at {rest!r}" if rest else "something is missing at its end"), ""
    line = lines[number - 1].strip()
    return f"line {number}: {words}: {_shown(line)}", hint


def _shown(line: str) -> str:
    return line if len(line) <= 120 else f"{line[:119]}…"


def _twice(lines: list[str], error: TOMLKitError) -> tuple[int, str, str] | None:
    """Return the fault of a key or table that occurs twice."""
    message = str(error)
    duplicate = _EXISTS.search(message)
    if duplicate is None and "Redefinition" not in message:
        return None
    headers = [(at, line.strip()) for at, line in enumerate(lines, 1) if line.strip().startswith("[")]
    for at, header in headers:
        earlier = [other for other, text in headers if other < at and text.strip("[]") == header.strip("[]")]
        if earlier and not (header.startswith("[[") and lines[earlier[0] - 1].strip().startswith("[[")):
            name = header.strip("[] ")
            hint = (
                f"write [[{name}]] for each of several"
                if name in ("peers", "nodes")
                else f"put both under one [{name}]"
            )
            return at, f"table {name!r} is on line {earlier[0]} already", hint
    key, table, seen = duplicate[1] if duplicate else "", 0, dict[tuple[int, str], int]()
    for at, line in enumerate(lines, 1):
        table = at if line.strip().startswith("[") else table
        assigned = _ASSIGNED.match(line)
        name = assigned[1].strip("\"'") if assigned else ""
        if name and (table, name) in seen and (not key or name == key):
            return at, f"{name!r} is on line {seen[table, name]} already", "remove one of the two"
        seen[table, name] = at
    return None


def _at(lines: list[str], number: int) -> tuple[int, str, str] | None:
    """Return what is wrong with the line that could not be read."""
    line = lines[number - 1].strip()
    if any(letter in line for letter in _CURLY):
        straight = re.sub(f"[{_CURLY}]", '"', line)
        return number, "the quotes have to be straight", straight
    if "\0" in line:
        return number, "it contains a byte of value 0", "the file was cut off or is not text: write it again"
    if line.startswith((";", "//")):
        return number, "comments begin with #", "#" + line.lstrip(";/")
    if line.startswith("["):
        return _header(number, line)
    assigned = _ASSIGNED.fullmatch(line)
    if assigned is None:
        return _not_assigned(number, line)
    return _value(number, assigned[1], assigned[2].strip())


def _header(number: int, line: str) -> tuple[int, str, str] | None:
    head = line.partition("#")[0].strip()
    left, right = len(head) - len(head.lstrip("[")), len(head) - len(head.rstrip("]"))
    name = head.strip("[] ")
    if left != right or left > 2 or not re.fullmatch(_KEY, name):
        brackets = min(max(left, 1), 2)
        return number, "its brackets don't match", f"{'[' * brackets}{name}{']' * brackets}"
    return None


def _not_assigned(number: int, line: str) -> tuple[int, str, str] | None:
    if line.startswith("="):
        return number, "the key before '=' is missing", ""
    match = re.match(rf"({_KEY})\s*(:?)\s*(.*)", line)
    if match is None or line[:1] in "\"'":
        return None
    key, colon, value = match[1], match[2], match[3].strip()
    if not value:
        return number, f"{key!r} has no value", f"{key} = …"
    if "=" in value:
        return number, "a key is one word", ""
    fault = "use '=' instead of ':'" if colon else "there is no '=' after the key"
    return number, fault, f"{key} = {_quoted(value)}"


def _value(number: int, key: str, value: str) -> tuple[int, str, str] | None:
    bare = value.partition("#")[0].strip()
    if not bare:
        return number, f"{key!r} has no value", ""
    if bare.lower() in _LETTERED and bare not in ("true", "false"):
        return number, "a switch is true or false", f"{key} = {_LETTERED[bare.lower()]}"
    if bare[0] in "[{":
        return _list(number, key, bare)
    if bare[0] not in "\"'":
        if re.search(r"[\"']\s*$", bare):
            return number, "the quote before the value is missing", f"{key} = {_quoted(bare)}"
        if re.fullmatch(r"[+-]?0\d+", bare):
            return number, "a number has no leading zero", f"{key} = {bare.lstrip('+-0') or '0'}"
        return number, "the value needs quotes", f"{key} = {_quoted(bare)}"
    return _quoted_value(number, key, value, bare)


def _quoted_value(number: int, key: str, value: str, bare: str) -> tuple[int, str, str] | None:
    if value.startswith(('"""', "'''")):
        return number, "the three quotes are not closed", ""
    quote = value[0]
    if quote not in value[1:]:
        return number, "the quote after the value is missing", f"{key} = {_quoted(bare)}"
    inside, _, rest = value[1:].partition(quote)
    rest = rest.strip()
    if quote == '"' and "\\" in inside:
        return number, "a backslash in quotes begins an escape", f"{key} = '{inside}'"
    if rest.startswith(("//", ";")):
        return number, "comments begin with #", f"{key} = {quote}{inside}{quote}  # {rest.lstrip('/; ')}"
    if rest.startswith(","):
        several = ", ".join(_quoted(part.strip()) for part in bare.split(","))
        return number, "several values need brackets", f"{key} = [{several}]"
    if rest:
        return number, f"{rest!r} may not follow the value", f"{key} = {quote}{inside}{quote}"
    return None


def _list(number: int, key: str, bare: str) -> tuple[int, str, str] | None:
    close = "]" if bare[0] == "[" else "}"
    if re.search(r"[\"']\s+[\"']", bare):
        return (
            number,
            "a comma is missing between two values",
            f"{key} = " + re.sub(r"([\"'])\s+([\"'])", r"\1, \2", bare),
        )
    if bare.count(bare[0]) != bare.count(close):
        return number, f"a '{close}' is missing", f"{key} = {bare.rstrip(', ')}{close}"
    return None


def _goes_on(lines: list[str], number: int) -> tuple[int, str, str] | None:
    """Return the fault of a list, inline table or three-quoted text that begins above the line and does not end."""
    for at in range(number - 1, 0, -1):
        assigned = _ASSIGNED.fullmatch(lines[at - 1].strip())
        value = assigned[2].strip() if assigned else ""
        through = "\n".join([value, *lines[at:number]])
        if assigned and value[:3] in ('"""', "'''") and through.count(value[:3]) % 2:
            return at, "the three quotes are not closed", ""
        if assigned and value[:1] in ("[", "{"):
            close = "]" if value[0] == "[" else "}"
            if through.count(value[0]) > through.count(close):
                alone = _ASSIGNED.fullmatch(lines[at].strip()) or not lines[at].strip()
                bare = value.partition("#")[0].strip().rstrip(", ")
                return at, f"a '{close}' is missing", f"{assigned[1]} = {bare}{close}" if alone and bare[1:] else ""
    return None


def _quoted(value: str) -> str:
    """Return a value in quotes; several that are separated by commas as a list."""
    bare = value.partition("#")[0].strip().strip("\"'").strip()
    if "," in bare:
        return "[" + ", ".join(_quoted(part) for part in bare.split(",") if part.strip()) + "]"
    return f'"{bare}"'
