"""Make the vocabulary that ships: names of things, beings, events and sounds with a short gloss, from WordNet 3.0.

    apt-get install wordnet-base
    python scripts/make_vocabulary.py                        # writes src/isthmus/items/data/vocabulary.tsv.gz
    python scripts/make_vocabulary.py --wordnet /usr/share/wordnet --out mine.tsv.gz --size 20000

The rules, none of which looks at any embedding, any data set or any pair:

1. Nouns of one to three words in small letters whose senses are mostly concrete: by WordNet's own files of senses
   (animals, artefacts, body, food, plants, natural things ...), weighted by how often each sense was tagged in text.
2. Sounds: the nouns below the synsets of sound, cry and laughter; gerunds of the verbs below those of sounding and of
   making noise, or whose definition says that a sound is made.
3. Events: gerunds of the tagged verbs of motion, contact, body, consumption, creation and weather.
4. Additions of our own (`scripts/vocabulary_additions.txt`): what is heard and seen but has no name in WordNet.
5. Common before rare: by how often a name was tagged in text and stands in WordNet's definitions; additions and sounds
   first, then nouns until the size is reached. Of one synset the commonest name and those that were tagged.
6. The gloss of a name is that of its commonest concrete sense up to the first semicolon, without brackets, and at most
   `GLOSS` letters, cut between words.

The same WordNet always gives the same bytes before compression.
"""

from __future__ import annotations

import argparse
import gzip
import io
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "src" / "isthmus" / "items" / "data" / "vocabulary.tsv.gz"
ADDITIONS = Path(__file__).with_name("vocabulary_additions.txt")
WORDNET = Path("/usr/share/wordnet")
SIZE = 20_000
GLOSS = 60
HEADER = "name\tkind\tcount\tgloss\n"

CONCRETE = {
    "04": "event", "05": "animal", "06": "artefact", "08": "body", "11": "event", "13": "food", "17": "object",
    "18": "person", "19": "phenomenon", "20": "plant", "25": "shape", "27": "substance",
}  # fmt: skip
"""Files of WordNet's noun senses that are concrete, and the kind of name that each gives."""
TAGGED_ONLY = {"04", "18", "25"}
"""Files in which only names that were tagged in text count: most acts and most persons are abstract or rare."""
PLACES = "15"
"""The file of places: rooms, landscapes and buildings are seen, but most of it names single places."""
GERUNDS = {"29": "event", "34": "event", "35": "event", "36": "event", "38": "event", "43": "event"}
"""Files of verbs that can be seen or heard: body, consumption, contact, creation, motion, weather."""
SOUND_NOUNS = ("07371293", "11480930", "07120524", "07127006")
"""Synsets of sound (the event), sound (the phenomenon), cry and laughter."""
SOUND_VERBS = ("02176286", "02179536", "02172906", "02135066")
"""Synsets of sounding, causing to sound, making noise, giving off a sound."""
SOUND_GLOSS = re.compile(r"\b(sounds?|noises?|noisily|nois[ey]|audibl[ey]|cry|cries)\b")
SOUND_FILES = {"29", "30", "32", "34", "35", "36", "38", "39", "43"}
NAME = re.compile(r"[a-z]{2,}(?:[ -][a-z]{2,}){0,2}")


@dataclass
class Synset:
    """One meaning: its file of senses, its words in WordNet's order, what lies above and below it, its definition."""

    file: str
    words: list[str]
    above: list[str] = field(default_factory=list)
    below: list[str] = field(default_factory=list)
    instance: bool = False
    gloss: str = ""


def read_synsets(path: Path) -> dict[str, Synset]:
    """Read `data.noun` or `data.verb`; by offset."""
    synsets = {}
    for line in path.read_text(encoding="latin-1").splitlines():
        if line.startswith("  "):  # the licence
            continue
        head, _, gloss = line.partition("|")
        parts = head.split()
        offset, file, count = parts[0], parts[1], int(parts[3], 16)
        words = [parts[4 + 2 * i].replace("_", " ") for i in range(count)]
        synset = Synset(file, words, gloss=gloss.strip())
        at = 4 + 2 * count
        for i in range(int(parts[at])):
            symbol, target = parts[at + 1 + 4 * i], parts[at + 2 + 4 * i]
            if symbol in ("@", "@i"):
                synset.above.append(target)
                synset.instance |= symbol == "@i"
            elif symbol == "~":
                synset.below.append(target)
        synsets[offset] = synset
    return synsets


def read_senses(path: Path) -> dict[str, list[str]]:
    """Read `index.noun` or `index.verb`: the offsets of a word's senses, commonest first."""
    senses = {}
    for line in path.read_text(encoding="latin-1").splitlines():
        if not line.startswith("  "):
            parts = line.split()
            senses[parts[0].replace("_", " ")] = parts[-int(parts[2]) :]
    return senses


def read_tags(path: Path) -> dict[tuple[str, str, int], int]:
    """Read `cntlist.rev`: how often a sense was tagged in text, by word, part of speech and number of the sense."""
    tags = {}
    for line in path.read_text(encoding="latin-1").splitlines():
        key, number, count = line.split()
        word, _, rest = key.partition("%")
        tags[word.replace("_", " "), rest[0], int(number)] = int(count)
    return tags


def below(synsets: dict[str, Synset], roots: Iterable[str]) -> set[str]:
    """Collect the offsets of some synsets and of all that lie below them."""
    found, stack = set(), list(roots)
    while stack:
        offset = stack.pop()
        if offset not in found:
            found.add(offset)
            stack += synsets[offset].below
    return found


def definition_counts(folder: Path) -> Counter[str]:
    """Count words and pairs of words in all definitions and examples: a corpus that comes with the list."""
    counts: Counter[str] = Counter()
    for kind in ("noun", "verb", "adj", "adv"):
        for line in (folder / f"data.{kind}").read_text(encoding="latin-1").splitlines():
            words = re.findall(r"[a-z-]+", line.partition("|")[2].lower())
            for size in (1, 2, 3):
                counts.update(" ".join(words[i : i + size]) for i in range(len(words) - size + 1))
    return counts


def gloss_of(synset: Synset) -> str:
    """Shorten a definition by rule: no examples, no brackets, up to the first semicolon, cut between words."""
    text = re.sub(r"\([^)]*\)", " ", synset.gloss).partition(";")[0].partition('"')[0]
    text = " ".join(re.sub(r"[()\t]", " ", text).split()).strip(" ,:")
    if len(text) > GLOSS:
        text = text[: GLOSS + 1].rpartition(" ")[0].rstrip(" ,:-")
        # a gloss does not end in the middle of "of the"
        text = re.sub(r"(?: (?:a|an|the|of|or|and|in|on|to|with|by|for|from|that|which|is|as|at))+$", "", text)
    return text


def gerund(verb: str, irregular: dict[str, str]) -> str:
    """Write a verb's gerund: `bark` barking, `scrape` scraping, `hum` humming."""
    if verb in irregular:
        return irregular[verb]
    if verb.endswith("ie"):
        return verb[:-2] + "ying"
    if verb.endswith("e") and not verb.endswith(("ee", "oe", "ye")):
        return verb[:-1] + "ing"
    one_syllable = len(re.findall(r"[aeiouy]+", verb)) == 1
    if one_syllable and re.search(r"[^aeiou][aeiouy][bdfgklmnprtvz]$", verb):
        return verb + verb[-1] + "ing"
    return verb + "ing"


def irregular_gerunds(path: Path) -> dict[str, str]:
    """Read `verb.exc`: the gerunds that double a letter or differ otherwise, by verb."""
    pairs = (line.split()[:2] for line in path.read_text(encoding="latin-1").splitlines())
    return {verb: form for form, verb in pairs if form.endswith("ing")}


@dataclass(frozen=True)
class Name:
    """One line of the vocabulary."""

    name: str
    kind: str
    count: int
    gloss: str


class WordNet:
    """What is read of WordNet, and the names that the rules take from it."""

    def __init__(self, folder: Path) -> None:
        self.nouns, self.verbs = read_synsets(folder / "data.noun"), read_synsets(folder / "data.verb")
        self.noun_senses, self.verb_senses = read_senses(folder / "index.noun"), read_senses(folder / "index.verb")
        self.tags = read_tags(folder / "cntlist.rev")
        self.tagged_nouns = {word for word, part, _ in self.tags if part == "1"}
        self.written = definition_counts(folder)
        self.irregular = irregular_gerunds(folder / "verb.exc")
        self.sounds = below(self.nouns, SOUND_NOUNS)
        self.sounding = below(self.verbs, SOUND_VERBS)

    def concrete_nouns(self) -> Iterator[tuple[str, str, Name]]:
        """Yield the names of rules 1 and 2 that are nouns, each with its synset's offset and whether it is a sound."""
        for word, offsets in self.noun_senses.items():
            if not NAME.fullmatch(word):
                continue
            weights = [self.tags.get((word, "1", i + 1), 0) + 1 / (i + 1) for i in range(len(offsets))]
            good = [i for i, offset in enumerate(offsets) if self.kind_of(word, offset, i)]
            if not good or sum(weights[i] for i in good) < 0.5 * sum(weights):
                continue
            best = max(good, key=lambda i: weights[i])
            synset = self.nouns[offsets[best]]
            if word not in synset.words:  # written with capitals there
                continue
            tagged = sum(self.tags.get((word, "1", i + 1), 0) for i in good)
            kind = self.kind_of(word, offsets[best], best)
            yield offsets[best], kind, Name(word, kind, tagged + self.written[word], gloss_of(synset))

    def kind_of(self, word: str, offset: str, number: int) -> str:
        """Give the kind of one sense of a noun, empty where it is not concrete."""
        synset = self.nouns[offset]
        if offset in self.sounds:
            return "sound"
        if synset.instance:
            return ""
        tagged = (word, "1", number + 1) in self.tags
        if synset.file == PLACES:
            return "place" if tagged else ""
        if synset.file in TAGGED_ONLY and not tagged:
            return ""
        return CONCRETE.get(synset.file, "")

    def gerunds(self) -> Iterator[Name]:
        """Yield the gerunds of rules 2 and 3."""
        for verb, offsets in self.verb_senses.items():
            if not re.fullmatch(r"[a-z]{2,}", verb):
                continue
            for number, offset in enumerate(offsets):
                synset = self.verbs[offset]
                tagged = self.tags.get((verb, "2", number + 1), 0)
                says = synset.file in SOUND_FILES and bool(SOUND_GLOSS.search(synset.gloss.partition('"')[0]))
                sound = (offset in self.sounding or says) and number < 4
                if sound or (number < 2 and tagged and synset.file in GERUNDS):
                    form = gerund(verb, self.irregular)
                    kind = "sound" if sound else "event"
                    yield Name(form, kind, tagged + self.written[form], gloss_of(synset))
                    break


def read_additions(path: Path) -> Iterator[Name]:
    """Read the additions: lines `name`, under headings `[kind]`; `#` starts a comment."""
    kind = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        text = line.partition("#")[0].strip()
        if text.startswith("["):
            kind = text.strip("[]")
        elif text:
            yield from (Name(name.strip(), kind, 0, "") for name in text.split(",") if name.strip())


def choose(wordnet: WordNet, size: int) -> list[Name]:
    """Put the rules together; names in the order of the alphabet, each once."""
    chosen: dict[str, Name] = {}
    for name in read_additions(ADDITIONS):
        chosen.setdefault(name.name, name)
    for name in wordnet.gerunds():
        chosen.setdefault(name.name, name)
    groups: dict[str, list[Name]] = defaultdict(list)
    for offset, _, name in wordnet.concrete_nouns():
        groups[offset].append(name)
    nouns = []
    for offset, names in groups.items():
        order = {word: i for i, word in enumerate(wordnet.nouns[offset].words)}
        names.sort(key=lambda name: (-name.count, order[name.name]))
        nouns += [name for i, name in enumerate(names) if i == 0 or name.name in wordnet.tagged_nouns]
    nouns.sort(key=lambda name: (name.kind != "sound", -name.count, name.name))
    for name in nouns:
        if len(chosen) >= size:
            break
        if name.name not in chosen or not chosen[name.name].gloss:
            chosen[name.name] = name
    return sorted(chosen.values(), key=lambda name: name.name)


def make(wordnet: Path = WORDNET, size: int = SIZE) -> str:
    """Make the vocabulary's table as text: a header and one line a name."""
    rows = (f"{name.name}\t{name.kind}\t{name.count}\t{name.gloss}\n" for name in choose(WordNet(wordnet), size))
    return HEADER + "".join(rows)


def compress(text: str) -> bytes:
    """Compress without a time or a name, so that the same text gives the same bytes."""
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, compresslevel=9, mtime=0) as stream:
        stream.write(text.encode())
    return buffer.getvalue()


def main() -> None:
    """Make the vocabulary and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wordnet", type=Path, default=WORDNET, help="folder of WordNet's dictionary files")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--size", type=int, default=SIZE, help="names at most")
    arguments = parser.parse_args()
    if not (arguments.wordnet / "data.noun").is_file():
        raise SystemExit(f"{arguments.wordnet} holds no data.noun. Run: apt-get install wordnet-base")
    text = make(arguments.wordnet, arguments.size)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_bytes(compress(text))
    print(f"{arguments.out}: {text.count(chr(10)) - 1:,} names, {arguments.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
