"""Words brought into one form: case, plural, punctuation, spelling, word order, sides."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z][a-z])|(?<=[a-z]{2})(?=[A-Z]+\b)")
_APART = re.compile(r"[^\w\u4e00-\u9fff]+|_+")
_CHINESE = re.compile(r"[\u3400-\u9fff]")
_RUNS = re.compile(r"[\u3400-\u9fff]+|[^\s\u3400-\u9fff]+")
_SIDES = {"left": "left", "right": "right", "l": "left", "r": "right", "lt": "left", "rt": "right",
          "lft": "left", "rgt": "right", "sinister": "left", "dexter": "right",
          "左": "left", "右": "right"}  # fmt: skip
_LINKS = frozenset(("the", "a", "an", "of", "and", "in", "on", "at", "to", "for", "from", "with",
                    "by", "my", "his", "her", "its", "this", "that"))  # fmt: skip
_BOTH = frozenset(("both", "bilateral", "pair", "双", "两"))
_IRREGULAR = {
    "atria": "atrium", "vertebrae": "vertebra", "bronchi": "bronchus", "testes": "testis",
    "ovaries": "ovary", "menisci": "meniscus", "hippocampi": "hippocampus", "nuclei": "nucleus",
    "venae": "vena", "femora": "femur", "scapulae": "scapula", "fibulae": "fibula",
    "tibiae": "tibia", "humeri": "humerus", "thalami": "thalamus", "ureteres": "ureter",
    "lenses": "lens", "arteries": "artery", "teeth": "tooth", "metastases": "metastasis",
    "viscera": "viscus", "cochleae": "cochlea", "costae": "costa", "patellae": "patella",
    "clavicles": "clavicle", "auricles": "auricle", "corpora": "corpus", "bodies": "body",
    "cavities": "cavity", "sarcomata": "sarcoma", "calves": "calf",
}  # fmt: skip
_KEPT = ("ss", "us", "is", "as", "ns", "os", "ps", "aps")
_SPELLING = (("oesoph", "esoph"), ("tumour", "tumor"), ("oedema", "edema"), ("haem", "hem"),
             ("foet", "fet"), ("fibre", "fiber"), ("centre", "center"), ("grey", "gray"),
             ("caec", "cec"), ("coeliac", "celiac"), ("ischaem", "ischem"), ("paed", "ped"),
             ("disk", "disc"), ("enhanced", "enhancing"))  # fmt: skip
_SIMPLIFIED = str.maketrans(
    "臟腎膽腦動靜脈腸腫體脊頭顱頸鎖關節總門脾葉氣視經頜腺喉齒東見車長馬風龍後軀幹寬並閉無無強壞塊癌灶組織實質區膚個為與層鐘側雙兩邊間盤髖髂臀肌椎軟療靶積胎兒細質核病變結節網膜區",
    "脏肾胆脑动静脉肠肿体脊头颅颈锁关节总门脾叶气视经颌腺喉齿东见车长马风龙后躯干宽并闭无无强坏块癌灶组织实质区肤个为与层钟侧双两边间盘髋髂臀肌椎软疗靶积胎儿细质核病变结节网膜区",
)
_CHINESE_LINKS = ("的", "侧", "边")


@dataclass(frozen=True)
class Folded:
    """Words in one form.

    Args:
        words: In their order, without articles; sides as `left` and `right`.
        side: `left`, `right` or empty.
        numbers: Words with a digit, which must be the same to mean the same.
    """

    words: tuple[str, ...]
    side: str
    numbers: tuple[str, ...]

    @property
    def text(self) -> str:
        """What the tower reads."""
        return " ".join(self.words)

    @property
    def key(self) -> tuple[str, ...]:
        """Equal for the same words in another order."""
        return tuple(sorted(self.words))


def fold(text: str) -> Folded:
    """Fold words of English or Chinese.

    `Kidney_L`, `left kidneys` and `the kidney, left` become the same; `右側腎臟` and `右肾脏` too.

    Args:
        text: Any words.
    """
    plain = unicodedata.normalize("NFKC", text)
    # Abbreviations such as `LV` stay whole; `SpinalCord` comes apart.
    plain = _CAMEL.sub(" ", plain).lower().replace("'s ", " ")
    plain = _APART.sub(" ", plain).translate(_SIMPLIFIED)
    words: list[str] = []
    for run in _RUNS.findall(plain):
        words += _chinese(run) if _CHINESE.match(run) else _english(run)
    bare = [word for word in words if word not in _BOTH] or words
    sides = {word for word in bare if word in ("left", "right")}
    side = sides.pop() if len(sides) == 1 else ""
    numbers = tuple(sorted(word for word in bare if any(c.isdigit() for c in word)))
    return Folded(tuple(bare), side, numbers)


def _english(word: str) -> list[str]:
    if word in _LINKS:
        return []
    if word in _SIDES:
        return [_SIDES[word]]
    for british, american in _SPELLING:
        word = word.replace(british, american)
    return [singular(word)]


def singular(word: str) -> str:
    """A word without its plural ending, where it has a plain one."""
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if len(word) < 4 or not word.endswith("s") or word.endswith(_KEPT):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-2] if word.endswith(("ches", "shes", "xes", "sses")) else word[:-1]


def _chinese(run: str) -> list[str]:
    for link in _CHINESE_LINKS:
        run = run.replace(link, "") or run
    if run[0] in _BOTH and len(run) > 1:
        run = run[1:]
    side = _SIDES.get(run[0])
    return [run] if side is None else [side, *([run[1:]] if len(run) > 1 else [])]
