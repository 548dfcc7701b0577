"""What `--help` prints of every command -> the second half of docs/commands.md.

python docs/make_commands.py            writes it
python docs/make_commands.py --check    only says whether the page is stale (exit code 1)
"""

import sys
from pathlib import Path

from beatline import cli

PAGE = Path(__file__).with_name("commands.md")
MARK = "<!-- below: written by docs/make_commands.py -->\n"


def page(old: str) -> str:
    """The page anew: its written part as it is, then every command's help."""
    parts = [f"## {words}\n\n```text\n{text.strip()}\n```\n" for words, text in cli.reference().items()]
    return old.split(MARK)[0] + MARK + "\n" + "\n".join(parts)


def main() -> int:
    """Writes the page, or compares it."""
    old = PAGE.read_text()
    new = page(old)
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(new)
    elif old != new:
        print("docs/commands.md is stale: python docs/make_commands.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
