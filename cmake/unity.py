#!/usr/bin/env python3
"""Says which files of one library are compiled together: unity.py MAX_LINES FILE... prints "GROUP FILE" for each file that has company.

A compiler spends most of its time here on what ATen's headers leave to be instantiated in every file, so files compiled as one are
three times as quick. Files may stand together as long as no name that one of them keeps to itself (in an unnamed namespace) is used
in another one, where it would mean something else, and as long as they use whole namespaces alike. A file that defines macros stays
alone. Where this overlooks a name the compiler says so; give that name another one."""
import re
import sys

KEYWORDS = {"if", "for", "while", "return", "operator", "TEST_CASE", "TEST_SUITE", "SCENARIO", "static_assert", "defined", "decltype", "alignas"}


def declared(line):
    """Names that a line at the left margin declares."""
    line = re.sub(r"^(template ?<[^{}]*?> |\[\[\w+\]\] |static |inline |constexpr |thread_local |extern )+", "", line)
    if line.startswith("using "):
        return set(re.findall(r"^using (\w+) =", line))
    if found := re.match(r"(?:struct|class|union|enum(?: class| struct)?|concept|namespace) (\w+)", line):
        return {found[1]}
    if found := re.match(r"[^=\"]*?\b(\w+)\(", line):
        return {found[1]}
    return set(re.findall(r"(\w+)(?:\[[^\]]*\])*(?= =|\{|;|,$)", re.sub(r"\{.*", "{", line)))


class File:
    def __init__(self, path):
        self.path = path
        text = open(path, encoding="utf-8").read()
        lines = text.splitlines()
        self.lines = len(lines)
        self.alone = any(re.match(r"#\s*(define|undef|pragma GCC)", line) for line in lines)
        self.whole = set(re.findall(r"^using namespace ([\w:]+);", text, re.MULTILINE))
        self.own = set()  # names that the rest of the program does not see
        self.words = set(re.findall(r"(?<![\w.:>])[A-Za-z_]\w*", re.sub(r'//.*|"(?:[^"\\]|\\.)*"', "", text)))
        unnamed = False
        for line in lines:
            if line.startswith("namespace {"):
                unnamed = True
            elif line.startswith("}  // namespace"):
                unnamed = False
            elif line and (unnamed or line.startswith("static ")) and line[0] not in " }#/)":
                self.own |= declared(line) - KEYWORDS

    def goes_with(self, group):
        return all(self.whole == other.whole and not self.own & other.words and not other.own & self.words for other in group)


def grouped(files, max_lines):
    groups = []
    for file in files:
        if file.alone:
            continue
        for group in groups:
            if sum(other.lines for other in group) + file.lines <= max_lines and file.goes_with(group):
                group.append(file)
                break
        else:
            groups.append([file])
    return groups


if __name__ == "__main__":
    for number, group in enumerate(grouped([File(path) for path in sys.argv[2:]], int(sys.argv[1]))):
        if len(group) > 1:
            print("\n".join(f"together_{number} {file.path}" for file in group))
