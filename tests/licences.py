"""Reads `cargo metadata` and fails when a dependency's licence is not on the list."""

import json
import re
import sys

ALLOWED = {
    "0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "CDLA-Permissive-2.0",
    "ISC", "MIT", "MIT-0", "Unicode-3.0", "Unlicense", "Zlib",
}


def permitted(expression):
    """Whether an SPDX expression can be satisfied with the allowed licences alone."""
    # Some crates still write the old form "MIT/Apache-2.0".
    tokens = re.findall(r"\(|\)|[^\s()/]+|/", expression)
    at = 0

    def peek():
        return tokens[at] if at < len(tokens) else None

    def take():
        nonlocal at
        at += 1
        return tokens[at - 1]

    def term():
        if peek() == "(":
            take()
            value = either()
            if peek() != ")":
                raise ValueError(expression)
            take()
            return value
        name = take()
        if peek() == "WITH":
            take()
            name += " WITH " + take()
        return name in ALLOWED

    def both():
        value = term()
        while peek() == "AND":
            take()
            value = term() and value
        return value

    def either():
        value = both()
        while peek() in ("OR", "/"):
            take()
            value = both() or value
        return value

    result = either()
    if peek() is not None:
        raise ValueError(expression)
    return result


def main():
    assert permitted("MIT OR GPL-3.0") and permitted("MIT/Apache-2.0") and permitted("(MIT OR X) AND ISC")
    assert not permitted("MIT AND GPL-3.0") and not permitted("GPL-3.0-only") and permitted("Apache-2.0 WITH LLVM-exception OR X")
    packages = json.load(sys.stdin)["packages"]
    wrong = 0
    for package in packages:
        if package["source"] is None:
            continue
        licence = package["license"]
        try:
            fine = licence is not None and permitted(licence)
        except (ValueError, IndexError):
            fine = False
        if not fine:
            wrong += 1
            print(f"{package['name']} {package['version']}: licence {licence!r} is not on the list of tests/licences.py")
    print(f"{len(packages)} packages, {wrong} with a licence that is not on the list")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
