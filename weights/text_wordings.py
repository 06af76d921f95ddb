"""Wordings that the text tower is trained on: paraphrases of what is known, and what is not.

Kept apart from the training loop so that a test can ask whether a wording was ever drawn.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from zlib import crc32

from promptseg.text.folding import fold
from promptseg.text.plain import ADJECTIVES
from promptseg.text.tower import clip_tokenizer
from promptseg.text.vocabulary import Concept, Vocabulary

TEMPLATES = (
    "{}", "{} region", "{} organ", "segment {}", "outline of {}", "{} contour", "{} mask",
    "whole {}", "entire {}", "{} tissue", "{} structure", "patient {}", "human {}", "{} in ct",
    "{} on mri", "contour {}", "find {}", "delineate {}", "please segment {}", "{} volume",
    "{} area", "image of {}", "anatomical {}", "show me {}", "where is {}", "normal {}",
    "{} of patient", "{} roi", "{} segmentation", "{} label", "{} anatomy", "extract {}",
    "{} boundary", "mri of {}", "ct scan of {}", "{} part", "complete {}", "{} only", "{} itself",
    "annotate {}", "highlight {}", "give me {}", "{} please", "inside of {}", "{} side",
)  # fmt: skip
CHINESE_TEMPLATES = (
    "{}", "{}区域", "{}器官", "分割{}", "请分割{}", "勾画{}", "{}轮廓", "整个{}", "{}组织",
    "{}结构", "患者{}", "人体{}", "{}部位", "{}影像", "{}体积", "{}边界", "找出{}", "标注{}",
    "提取{}", "{}范围", "{}在哪里", "正常{}", "{}部分", "{}分割", "{}图像", "显示{}", "全部{}",
    "{}内部", "{}本身", "这个{}",
)  # fmt: skip
SWAPS = {
    "cavity": ("chamber", "lumen", "hollow", "blood cavity", "interior"),
    "chamber": ("cavity", "compartment"),
    "blood pool": ("blood", "blood volume", "filled cavity"),
    "gland": ("gland organ", "glandular tissue"),
    "wall": ("muscle", "muscular wall", "outer wall"),
    "muscle": ("muscle tissue", "musculature"),
    "bone": ("bony structure", "skeleton part"),
    "anterior": ("front", "frontal"),
    "posterior": ("back", "rear"),
    "upper": ("top", "superior"),
    "lower": ("bottom", "inferior"),
    "artery": ("arterial vessel", "arteria"),
    "vein": ("venous vessel", "vena"),
    "tumor": ("neoplasm", "lesion", "cancer mass"),
    "腔": ("内腔", "空腔", "腔体"),
    "血池": ("血液", "血腔"),
    "壁": ("肌壁", "室壁"),
    "体": ("体部",),
    "头": ("头部",),
}
FOREIGN = (
    "pneumonia", "bronchitis", "asthma", "tuberculosis", "hepatitis", "cholecystitis", "colitis",
    "gastritis", "pancreatitis", "appendicitis", "arthritis", "tendonitis", "scoliosis", "hernia",
    "ulcer", "fibrosis", "thrombosis", "embolism", "stenosis", "ischemia", "infarction",
    "diabetes", "hypertension", "dementia", "epilepsy", "migraine", "parkinson disease", "anemia",
    "sepsis", "leukemia", "lymphoma", "fever", "cough", "allergy", "infection control", "abscess",
    "fistula", "fracture line", "dislocation", "sprain", "bruise", "burn", "bullet", "stent",
    "prosthesis", "screw", "implant", "electrode", "endotracheal tube", "feeding tube", "needle",
    "surgical clip", "suture", "gauze", "table couch", "head coil", "scanner bore", "marker",
    "ruler", "noise", "motion artifact", "beam hardening", "streak", "air bubble", "gas", "water",
    "foam", "plaster", "triceps", "deltoid", "trapezius", "latissimus dorsi", "pectoralis major",
    "hamstring", "quadriceps", "gastrocnemius", "soleus", "sartorius", "masseter", "temporalis",
    "sternomastoid", "metatarsal", "metacarpal", "phalanx", "carpal bone", "talus", "navicular",
    "cuboid", "coccyx", "ear canal", "eardrum", "nostril", "nasal septum", "maxillary sinus",
    "frontal sinus", "tonsil", "adenoid", "uvula", "epiglottis", "esophageal varix", "gum",
    "palate", "cheek", "chin", "forehead", "eyebrow", "eyelid", "cornea", "retina", "iris",
    "hair", "nail", "finger", "thumb", "wrist", "elbow", "forearm", "shoulder joint", "ankle",
    "heel", "toe", "foot", "hand", "knee joint", "shin", "calf", "thigh", "buttock", "navel",
    "nipple", "armpit", "scalp", "median nerve", "ulnar nerve", "vagus nerve", "facial nerve",
    "trigeminal nerve", "phrenic nerve", "brachial plexus", "ganglion", "pineal body", "putamen",
    "caudate", "globus pallidus", "hypothalamus", "insula", "cingulate gyrus", "occipital lobe",
    "parietal lobe", "fornix", "tricuspid valve", "pulmonary valve", "aortic valve",
    "papillary muscle", "septum", "chordae", "sinus node", "ductus arteriosus", "azygos vein",
    "saphenous vein", "popliteal artery", "radial artery", "basilar artery", "circle of willis",
    "vertebral artery", "thoracic duct", "bile duct", "pancreatic duct", "cystic duct",
    "ileocecal valve", "cecum", "omentum", "mesentery", "foreskin", "epididymis",
    "fallopian tube", "clitoris", "cruciate ligament", "collateral ligament", "bursa",
    "tendon sheath", "plantar fascia", "bone marrow", "hyoid", "maxilla", "zygoma", "ethmoid",
    "sphenoid", "vomer", "blood pressure", "heart rate", "heart failure", "oxygen level", "dose",
    "age", "gender", "name", "hospital", "doctor", "nurse", "radiologist", "report", "diagnosis",
    "treatment", "surgery", "prescription", "insurance", "appointment", "study date", "left",
    "right", "upper", "lower", "middle", "anterior", "posterior", "gland", "wall", "cavity",
    "region", "organ", "structure", "lobe", "artery", "vein", "vessel", "nerve", "bone", "tissue",
    "head", "part", "area", "everything", "nothing", "background", "object", "thing", "something",
    "dog", "cat", "horse", "elephant", "bird", "fish", "snake", "spider", "butterfly", "tree",
    "flower", "grass", "river", "ocean", "lake", "beach", "cloud", "rain", "snow", "sun", "star",
    "planet", "rocket", "airplane", "ship", "boat", "train", "truck", "bus", "car", "motorcycle",
    "road", "bridge", "house", "castle", "church", "tower", "school", "office", "kitchen",
    "table", "chair", "sofa", "bed", "lamp", "window", "door", "clock", "phone", "computer",
    "keyboard", "printer", "camera", "television", "radio", "piano", "violin", "drum", "trumpet",
    "football", "tennis", "chess", "apple", "orange", "grape", "bread", "cheese", "coffee", "tea",
    "wine", "pizza", "sandwich", "soup", "sugar", "salt", "shirt", "trousers", "hat", "glove",
    "umbrella", "king", "queen", "soldier", "teacher", "student", "lawyer", "money", "bank",
    "stock market", "law", "war", "peace", "love", "music", "painting", "poem", "novel",
    "history", "mathematics", "physics", "chemistry", "engine", "wheel", "battery", "solar panel",
    "robot", "software",
)  # fmt: skip
CHINESE_FOREIGN = (
    "肺炎", "支气管炎", "哮喘", "结核", "肝炎", "胆囊炎", "肠炎", "胃炎", "胰腺炎", "阑尾炎",
    "关节炎", "脊柱侧弯", "疝气", "溃疡", "纤维化", "血栓", "栓塞", "狭窄", "缺血", "糖尿病",
    "高血压", "痴呆", "癫痫", "贫血", "白血病", "发烧", "咳嗽", "过敏", "脓肿", "脱位", "扭伤",
    "支架", "假体", "螺钉", "植入物", "电极", "导管", "缝线", "扫描床", "伪影", "噪声", "气体",
    "肱三头肌", "三角肌", "斜方肌", "胸大肌", "股四头肌", "腓肠肌", "咬肌", "跖骨", "掌骨",
    "指骨", "尾骨", "耳道", "鼓膜", "鼻中隔", "上颌窦", "扁桃体", "腺样体", "会厌", "牙龈",
    "脸颊", "额头", "眉毛", "角膜", "视网膜", "虹膜", "头发", "指甲", "手指", "手腕", "手肘",
    "脚踝", "脚跟", "脚趾", "手", "脚", "膝盖", "大腿", "小腿", "肚脐", "正中神经", "面神经",
    "迷走神经", "三叉神经", "松果体", "壳核", "尾状核", "下丘脑", "岛叶", "枕叶", "顶叶",
    "三尖瓣", "肺动脉瓣", "主动脉瓣", "室间隔", "胆管", "胰管", "盲肠", "网膜", "附睾", "输卵管",
    "韧带", "骨髓", "舌骨", "血压", "心率", "心衰", "医院", "医生", "护士", "报告", "诊断",
    "治疗", "手术", "药物", "姓名", "年龄", "左", "右", "上", "下", "腺体", "壁", "腔", "区域",
    "器官", "结构", "叶", "动脉", "静脉", "神经", "骨", "组织", "部分", "背景", "东西", "狗",
    "猫", "马", "大象", "鸟", "鱼", "蛇", "树", "花", "草", "河", "海洋", "湖", "云", "雨", "雪",
    "太阳", "星星", "行星", "火箭", "飞机", "轮船", "卡车", "公交车", "汽车", "道路", "桥",
    "房子", "城堡", "学校", "办公室", "厨房", "桌子", "椅子", "床", "灯", "窗户", "门", "时钟",
    "电话", "电脑", "键盘", "相机", "电视", "钢琴", "足球", "网球", "橙子", "葡萄", "面包",
    "奶酪", "咖啡", "茶", "糖", "盐", "衬衫", "帽子", "雨伞", "国王", "士兵", "老师", "学生",
    "钱", "银行", "法律", "战争", "和平", "音乐", "绘画", "诗歌", "小说", "历史", "数学", "物理",
    "化学", "发动机", "车轮", "电池", "机器人", "软件",
)  # fmt: skip
HEADS = (
    "failure", "stone", "cirrhosis", "inflammation", "transplant", "biopsy", "function test",
    "disease", "pain", "surgery", "attack", "fibrosis", "duct", "nerve", "valve", "ligament",
    "rupture", "trauma", "stent", "catheter", "fracture", "infection rate", "hernia", "embolism",
    "stenosis", "thrombus", "calcification", "ulcer", "enzyme", "specialist", "rate", "pressure",
    "arrest", "murmur", "implant", "screw", "donor", "abscess", "artifact", "prolapse", "spasm",
)  # fmt: skip
CHINESE_HEADS = (
    "炎", "衰竭", "结石", "硬化", "移植", "活检", "功能", "疾病", "疼痛", "手术", "纤维化", "管",
    "神经", "瓣", "韧带", "破裂", "外伤", "支架", "导管", "骨折", "栓塞", "狭窄", "血栓", "钙化",
    "溃疡", "酶", "专家", "压力", "积水", "脓肿", "下垂", "痉挛", "肥大", "脂肪变", "萎缩",
    "扩张", "出血", "梗死",
)  # fmt: skip
COMMON = "的一是不了在人有我他这为之大来以个中上们到说国和地也子时道出而要于就下得可你年生自会那后能对着事其里所去行过家十用发天如然作方成者多日都三小军二无同么经法当起与好看学进种将还分此心前面又定见只主没公从知全工使情明性己正外但两"  # noqa: E501


class Wordings:
    """Draws wordings.

    Args:
        known: The vocabulary.
        seed: Decides every draw, and what is held out.
        held: Share of names and of foreign words that training never draws.
    """

    def __init__(self, known: Vocabulary, seed: int = 0, held: float = 0.12) -> None:
        self.known = known
        chance = random.Random(seed)
        self.names: dict[str, list[str]] = {}
        self.held_names: list[tuple[str, str]] = []
        for concept in known.concepts.values():
            kept = [concept.name]
            for name in concept.names:
                # An abbreviation that was never seen cannot be guessed: it is no fair question.
                guessable = len(name) > 4 or not name.isascii()
                if guessable and len(concept.names) > 3 and chance.random() < held:
                    self.held_names.append((name, concept.name))
                else:
                    kept.append(name)
            self.names[concept.name] = kept
        every = [*FOREIGN, *CHINESE_FOREIGN]
        chance.shuffle(every)
        count = round(len(every) * held)
        self.held_foreign, self.foreign = every[:count], every[count:]
        taken = {
            word for c in known.concepts.values() for n in c.wordings for word in fold(n).words
        }
        taken |= {*ADJECTIVES.values(), *ADJECTIVES}
        words = [
            word.removesuffix("</w>")
            for word in clip_tokenizer().encoder
            if word.endswith("</w>") and word[:-4].isascii() and word[:-4].isalpha()
            and len(word) > 7 and word[:-4] not in taken
        ]  # fmt: skip
        # Words of the classes 1 and 2 are for tests: nothing here ever draws them.
        self.held_words = [word for word in words if crc32(word.encode()) % 10 == 0]
        self.words = [word for word in words if crc32(word.encode()) % 10 > 2]

    def paraphrase(self, concept: Concept, chance: random.Random) -> str:
        """A wording of a concept: a name, changed and framed."""
        return framed(varied(chance.choice(self.names[concept.name]), chance), chance)

    def stranger(self, chance: random.Random, held: bool = False) -> str:
        """Words that are no known concept."""
        while True:
            words = self._stranger(chance, held)
            if fold(words).words and not (self.known.find(words) or self.known.find_plain(words)):
                return words

    def _stranger(self, chance: random.Random, held: bool) -> str:
        listed, words = (self.held_foreign, self.held_words) if held else (self.foreign, self.words)
        draw = chance.random()
        if draw < 0.3:
            return framed(typo(chance.choice(listed), chance, 0.05), chance)
        if draw < 0.55:
            side = chance.choice(("", "", "", "left ", "right ", "upper ", "anterior "))
            many = chance.choice((1, 1, 2, 2, 3))
            return framed(side + " ".join(chance.choice(words) for _ in range(many)), chance)
        if draw < 0.65:
            count = chance.randint(1, 5)
            return framed("".join(chance.choice(COMMON) for _ in range(count)), chance)
        name = chance.choice(self.names[chance.choice(list(self.names))])
        if not name.isascii():
            return name + chance.choice(CHINESE_HEADS)
        if draw < 0.75:
            return f"{chance.choice(words)} {chance.choice(name.split())}"
        shown = adjectival(name, chance) if chance.random() < 0.5 else name
        return f"{shown} {chance.choice(HEADS)}"


def varied(name: str, chance: random.Random) -> str:
    """A name with words swapped, in another order, as an adjective, or misspelt."""
    for word, others in SWAPS.items():
        if word in name and chance.random() < 0.35:
            name = name.replace(word, chance.choice(others))
    if not name.isascii():
        inner = chance.random() < 0.2 and len(name) > 2
        cut = chance.randint(1, len(name) - 1) if inner else 0
        return f"{name[:cut]}的{name[cut:]}" if cut else name
    if chance.random() < 0.25:
        name = adjectival(name, chance)
        if chance.random() < 0.5 and name.endswith("al"):
            name += chance.choice((" organ", " tissue", " structure"))
    words = name.split()
    if len(words) > 1 and chance.random() < 0.15:
        chance.shuffle(words)
    return typo(" ".join(words), chance, 0.12)


def adjectival(name: str, chance: random.Random) -> str:
    """A name with nouns as adjectives."""
    return " ".join(ADJECTIVES.get(word, word) for word in name.split())


def typo(text: str, chance: random.Random, share: float) -> str:
    """Two letters swapped, one dropped or one doubled, now and then, in a longer word."""
    words = text.split()
    long = [n for n, word in enumerate(words) if len(word) > 5 and word.isascii()]
    if not long or chance.random() >= share:
        return text
    n = chance.choice(long)
    word, at = words[n], chance.randint(1, len(words[n]) - 2)
    words[n] = chance.choice(
        (
            word[:at] + word[at + 1] + word[at] + word[at + 2 :],
            word[:at] + word[at + 1 :],
            word[:at] + word[at] + word[at:],
        )
    )
    return " ".join(words)


def framed(text: str, chance: random.Random) -> str:
    """Words in a phrase or in two, as often as not."""
    templates: Sequence[str] = TEMPLATES if text.isascii() else CHINESE_TEMPLATES
    while chance.random() < 0.4:
        text = chance.choice(templates).format(text)
    return text
