"""Words without what says nothing of the organ: `the right renal tissue, please`."""

from __future__ import annotations

import re

from promptseg.text.folding import Folded, fold

NEUTRAL = frozenset((
    "region", "area", "organ", "structure", "tissue", "cavity", "chamber", "lumen", "space",
    "parenchyma", "contour", "outline", "mask", "boundary", "border", "volume", "segmentation",
    "label", "roi", "anatomy", "anatomical", "image", "scan", "picture", "ct", "mri", "mr",
    "whole", "entire", "complete", "full", "total", "all", "normal", "healthy", "patient", "human",
    "person", "please", "segment", "find", "show", "delineate", "annotate", "extract", "highlight",
    "mark", "draw", "give", "get", "me", "us", "you", "is", "are", "where", "what", "which", "part",
    "portion", "side", "sided", "hand", "located", "lying", "inside", "within", "interior", "inner",
    "itself", "only", "gland", "every", "voxel", "seen", "visible", "shown", "vessel", "sac",
))  # fmt: skip
CHINESE_NEUTRAL = (
    "血管", "位于", "里面", "内部", "区域", "器官", "轮廓", "组织", "结构", "部位", "部分", "整个",
    "整体", "全部", "患者", "病人", "人体", "影像", "图像", "范围", "边界", "体积", "分割",
    "勾画", "标注", "提取", "显示", "找出", "正常", "本身", "这个", "那个", "实质", "空腔",
    "腔体", "内腔", "腺体", "请", "里", "内", "腔", "中的", "方", "在",
)  # fmt: skip
ADJECTIVES = {
    "atrium": "atrial", "ventricle": "ventricular", "liver": "hepatic", "kidney": "renal",
    "spleen": "splenic", "lung": "pulmonary", "heart": "cardiac", "brain": "cerebral",
    "stomach": "gastric", "pancreas": "pancreatic", "prostate": "prostatic", "aorta": "aortic",
    "trachea": "tracheal", "esophagus": "esophageal", "colon": "colonic", "bladder": "vesical",
    "duodenum": "duodenal", "rectum": "rectal", "uterus": "uterine", "bowel": "intestinal",
    "myocardium": "myocardial", "hippocampus": "hippocampal", "femur": "femoral",
    "vertebra": "vertebral", "sternum": "sternal", "rib": "costal", "skull": "cranial",
    "mandible": "mandibular", "larynx": "laryngeal", "pharynx": "pharyngeal", "eye": "ocular",
    "fetus": "fetal", "muscle": "muscular", "ovary": "ovarian", "thymus": "thymic",
    "cerebellum": "cerebellar", "scapula": "scapular", "clavicle": "clavicular",
}  # fmt: skip
_NOUNS = {adjective: noun for noun, adjective in ADJECTIVES.items()}
_CHINESE = re.compile("|".join(sorted(CHINESE_NEUTRAL, key=len, reverse=True)))


def plain_words(words: Folded) -> list[str]:
    """The words that count, adjectives as their nouns."""
    kept = fold(_CHINESE.sub("", words.text)).words
    return [_NOUNS.get(word, word) for word in kept if word not in NEUTRAL]


def plain_key(words: Folded) -> tuple[str, ...]:
    """Key of the words that count; empty if none does."""
    return tuple(sorted(plain_words(words)))


def pieces(words: Folded) -> list[str]:
    """English words and Chinese characters that count."""
    plain = plain_words(words)
    return [piece for word in plain for piece in ([word] if word.isascii() else word)]
