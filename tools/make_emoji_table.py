"""Rebuild `tintype/data/emoji.tsv` from Unicode's own tables.

    apt-get install unicode-data unicode-cldr-core
    python tools/make_emoji_table.py

Kept: fully-qualified emoji that draw one thing. Left out: flags, symbols, people and their skin-tone or gender
multiples, and the clock and moon faces (31 pictures that differ by a hand). One line an emoji:
character, name, group, subgroup, version, keywords joined by `|`.
"""

import re
from pathlib import Path
from xml.etree import ElementTree

EMOJI_TEST = Path("/usr/share/unicode/emoji/emoji-test.txt")
ANNOTATIONS = Path("/usr/share/unicode/cldr/common/annotations/en.xml")
TABLE = Path(__file__).parent.parent / "tintype" / "data" / "emoji.tsv"
GROUPS = ("Smileys & Emotion", "Animals & Nature", "Food & Drink", "Travel & Places", "Activities", "Objects")
LINE = re.compile(r"^([0-9A-F ]+); fully-qualified +# \S+ E(\d+\.\d+) (.+)$")
SKIN_TONES = {chr(code) for code in range(0x1F3FB, 0x1F400)}


def keywords() -> dict[str, list[str]]:
    """Emoji -> CLDR keywords (English), keyed without the variation selector as CLDR does."""
    nodes = ElementTree.parse(ANNOTATIONS).getroot().iter("annotation")
    return {node.attrib["cp"]: (node.text or "").split(" | ") for node in nodes if "type" not in node.attrib}


def main() -> None:
    words, group, subgroup, lines = keywords(), "", "", []
    for line in EMOJI_TEST.read_text(encoding="utf-8").splitlines():
        if line.startswith("# group: "):
            group = line.removeprefix("# group: ")
        elif line.startswith("# subgroup: "):
            subgroup = line.removeprefix("# subgroup: ")
        elif (match := LINE.match(line)) and group in GROUPS and subgroup != "time":
            character = "".join(chr(int(code, 16)) for code in match[1].split())
            if SKIN_TONES & set(character):
                continue
            name = match[3].lower().replace("’", "'").replace("“", "").replace("”", "")
            synonyms = [word.lower() for word in words.get(character.replace("\ufe0f", ""), []) if word.lower() != name]
            lines.append("\t".join((character, name, group, subgroup, match[2], "|".join(synonyms))))
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(lines)} emoji -> {TABLE.name}")


if __name__ == "__main__":
    main()
