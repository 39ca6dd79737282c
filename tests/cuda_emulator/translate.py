"""A .cu file as C++ for the emulator: launches become calls, dynamic shared memory a pointer."""
import re
import sys


def balanced_back(text, at):
    depth = 0
    while at > 0:
        at -= 1
        depth += (text[at] == ">") - (text[at] == "<")
        if depth == 0:
            return at
    raise SystemExit("unbalanced <>")


def matching(text, at):
    depth = 0
    for i in range(at, len(text)):
        depth += (text[i] == "(") - (text[i] == ")")
        if depth == 0:
            return i
    raise SystemExit("unbalanced ()")


def translate(text):
    text = re.sub(r"extern\s+__shared__\s+(?:(?:__align__|alignas)\(\w+\)\s+)?(\w+(?:\s+\w+)*)\s+(\w+)\[\];",
                  r"\1 *\2 = (\1 *)emu_dynamic_shared();", text)
    while True:
        at = text.find("<<<")
        if at < 0:
            return text
        start = len(text[:at].rstrip())
        if text[start - 1] == ">":
            start = balanced_back(text, start)
        if text[start - 1] == ")":
            depth, k = 1, start - 2
            while depth:
                depth += (text[k] == ")") - (text[k] == "(")
                k -= 1
            start = k + 1
        else:
            start = re.search(r"[\w:]+\Z", text[:start]).start()
        config_end = text.index(">>>", at)
        args = config_end + 3
        args_end = matching(text, args)
        kernel, config = text[start:at], text[at + 3:config_end]
        given = text[args + 1:args_end]
        call = f"emu_launch(emu_bind([=](const auto &...emu_given) {{ {kernel}(emu_given...); }}, {given}), {config})"
        text = text[:start] + call + text[args_end + 1:]


with open(sys.argv[1]) as source:
    translated = translate(source.read())
with open(sys.argv[2], "w") as target:
    target.write(f'#line 1 "{sys.argv[1]}"\n' + translated)
