"""Runs one case of the command line: a text file with a command, its files and all it must say.

    python run_case.py PROGRAM CASE          compares; exit status 1 and a diff where something differs
    python run_case.py PROGRAM CASE --update writes what the program says now into the case

README.md beside this file tells the format.
"""
import difflib
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
CHECKOUT = os.path.dirname(os.path.dirname(HERE))
# What differs from run to run; its names stand in the cases.
VOLATILE = [
    (re.compile(r"\d+\.\d+ (s/it|it/s)"), "<rate>"),
    (re.compile(r'(?<="timestamp":)\d+'), "<time>"),
    (re.compile(r"\b\d+:\d\d(:\d\d)?\b|\b\d+(\.\d+)? (s|ms|us)\b"), "<time>"),
]


def read_case(path):
    """{section: text}: "command", "exit", "interrupt", "file NAME", "stdout", "stderr", "left"."""
    sections, name = {}, "command"
    with open(path, encoding="utf-8") as f:
        for line in f:
            if line.startswith("--- "):
                name = line[4:].strip()
                sections[name] = ""
            elif name != "command" or not line.startswith("#"):
                sections[name] = sections.get(name, "") + line
    return sections


def make_folder(folder, sections):
    """models/ and input/ with links to the demo model and pictures of the parity tests, then the case's own files."""
    model = os.path.join(CHECKOUT, "assets", "demo", "models", "checkpoints", "distorch-emoji-v1.safetensors")
    picture = os.path.join(CHECKOUT, "tests", "parity", "inputs", "small.png")
    for source, target in ((model, "models/checkpoints/emoji.safetensors"),
                           (model, "models/checkpoints/SD15/emoji.safetensors"),
                           (picture, "input/small.png"), (picture, "input/sub/small.png")):
        os.makedirs(os.path.join(folder, os.path.dirname(target)), exist_ok=True)
        os.symlink(source, os.path.join(folder, target))
    for name in os.listdir(os.path.join(HERE, "prompts")):
        os.symlink(os.path.join(HERE, "prompts", name), os.path.join(folder, name))
    for section, text in sections.items():
        if section.startswith("file "):
            path = os.path.join(folder, section[5:])
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w", encoding="utf-8") as f:
                f.write(text)


def files_in(folder):
    return {os.path.relpath(os.path.join(place, name), folder) for place, _, names in os.walk(folder) for name in names}


def run(program, sections, folder):
    """The exit status, standard output and standard error; SIGINT once the text of "interrupt" was written."""
    words = shlex.split(sections["command"])
    assert words[0] == "distorch", "a case begins with its command: distorch ..."
    words = [word.replace("{checkout}", CHECKOUT) for word in words[1:]]
    # No accelerator but a simulated one: what is said must not depend on the machine.
    environment = dict(os.environ, CUDA_VISIBLE_DEVICES="", HOME=folder, XDG_CACHE_HOME=os.path.join(folder, ".cache"), OMP_WAIT_POLICY="passive",
                       DISTORCH_TOKENIZERS=os.environ.get("DISTORCH_TOKENIZERS")
                       or os.path.join(CHECKOUT, ".deps", "tokenizers", "clip"))
    with open(os.path.join(folder, ".stderr"), "w+", encoding="utf-8") as errors:
        process = subprocess.Popen([program, *words], cwd=folder, env=environment, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=errors, text=True)
        out = ""
        if "interrupt" in sections:
            for line in process.stdout:
                out += line
                if sections["interrupt"].strip() in line:
                    process.send_signal(signal.SIGINT)
                    break
        out += process.communicate(timeout=300)[0]
        errors.seek(0)
        text = errors.read()
    os.remove(os.path.join(folder, ".stderr"))
    return process.returncode, out, text


def plain(text, folder):
    text = text.replace(os.path.realpath(folder), "<here>").replace(folder, "<here>").replace(CHECKOUT, "<checkout>")
    for pattern, name in VOLATILE:
        text = pattern.sub(name, text)
    return text


def line_fits(expected, got):
    parts = expected.split("<...>")
    return re.fullmatch(".*".join(map(re.escape, parts)), got) is not None


def fits(expected, got):
    """Line by line; <...> stands for anything within a line, a line that is only <...> for any lines."""
    want = have = 0
    star = None  # the last line of dots, and where the lines that it does not take begin
    while have < len(got):
        if want < len(expected) and expected[want] == "<...>":
            star = [want, have]
            want += 1
        elif want < len(expected) and line_fits(expected[want], got[have]):
            want, have = want + 1, have + 1
        elif star:
            star[1] += 1
            want, have = star[0] + 1, star[1]
        else:
            return False
    return all(line == "<...>" for line in expected[want:])


def main():
    program, path = os.path.abspath(sys.argv[1]), sys.argv[2]
    sections = read_case(path)
    with tempfile.TemporaryDirectory(prefix="distorch_cli_") as folder:
        make_folder(folder, sections)
        before = files_in(folder)
        status, out, errors = run(program, sections, folder)
        left = sorted(files_in(folder) - before)
        got = {"exit": f"{status}\n", "stdout": plain(out, folder), "stderr": plain(errors, folder),
               "left": "".join(f"{name}\n" for name in left)}
    wrong = [name for name in got if not fits(sections.get(name, "").splitlines(), got[name].splitlines())]
    if "--update" in sys.argv and wrong:
        with open(path, encoding="utf-8") as f:
            head = re.split(r"(?m)^--- (?:exit|stdout|stderr|left)$", f.read())[0]
        with open(path, "w", encoding="utf-8") as f:
            f.write(head)
            for name, text in got.items():
                kept = text if name in wrong else sections.get(name, "")
                if kept:
                    f.write(f"--- {name}\n{kept}" + ("" if kept.endswith("\n") else "\n"))
        return 0
    for name in wrong:
        print(f"{os.path.basename(path)}: {name} differs")
        sys.stdout.writelines(line.rstrip("\n") + "\n" for line in difflib.unified_diff(
            sections.get(name, "").splitlines(), got[name].splitlines(), "expected", "got", lineterm=""))
    return 1 if wrong else 0


sys.exit(main())
