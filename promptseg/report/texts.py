"""Words of the quality report in English and Chinese."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from promptseg.errors import PromptsegError

if TYPE_CHECKING:
    from promptseg.prompts.types import PromptSet

LANGUAGES = ("en", "zh")

REASONS: dict[str, tuple[str, str]] = {
    "empty": ("nothing was found", "未找到任何区域"),
    "gap": (
        "the mask is missing here, between slices that have it",
        "前后层面均有轮廓，本层缺失",
    ),
    "spike": (
        "the area is {percent} % larger than on the slices around",
        "面积比相邻层面大 {percent}%",
    ),
    "dip": (
        "the area is {percent} % smaller than on the slices around",
        "面积比相邻层面小 {percent}%",
    ),
    "jump": (
        "the outline overlaps the slice before by {percent} % only",
        "与前一层面的轮廓仅重叠 {percent}%",
    ),
    "abrupt": (
        "the mask ends here at {percent} % of its largest area: does the organ go on?",
        "轮廓在此处突然终止（为最大面积的 {percent}%）：器官是否仍在延续？",
    ),
    "stray": (
        "a component of {ml:.2g} ml lies apart from the rest",
        "存在与主体分离的部分（{ml:.2g} ml）",
    ),
    "more_strays": ("{count} more small components lie apart", "另有 {count} 个分离的小区域"),
    "holes": (
        "cavities inside the mask: {count}, {ml:.2g} ml in all",
        "轮廓内部存在空洞：{count} 个，共 {ml:.2g} ml",
    ),
    "border": (
        "the mask touches the edge of the image ({face}): it may be cut off",
        "轮廓触及图像边缘（{face}）：可能不完整",
    ),
    "low_quality": (
        "the network predicts a quality of {quality} here",
        "网络预测本层质量为 {quality}",
    ),
    "doubtful": (
        "about {percent} % of this outline is expected to be wrong",
        "预计本层约 {percent}% 的区域可能有误",
    ),
}
"""Why a slice is shown, in English and Chinese, by kind of finding."""

_LABELS: dict[str, tuple[str, str]] = {
    "title": ("Segmentation quality report", "分割质量报告"),
    "summary": ("Summary", "摘要"),
    "nothing": ("No slice was flagged.", "没有需要特别检查的层面。"),
    "flagged": ("{count} slices to check", "需检查的层面：{count} 个"),
    "flagged_one": ("1 slice to check", "需检查的层面：1 个"),
    "target": ("Target", "目标"),
    "volume": ("Volume", "体积"),
    "ml": ("ml", "ml"),
    "quality": ("Predicted quality", "预测质量"),
    "components": ("Components", "连通区域"),
    "holes": ("Cavities", "空洞"),
    "border": ("Touches edge", "触及边缘"),
    "recist": ("RECIST long × short", "RECIST 长径 × 短径"),
    "box": ("Extent", "范围"),
    "intensity": ("Mean ± SD", "均值 ± 标准差"),
    "to_check": ("To check", "待检查"),
    "none": ("none", "无"),
    "overview": ("Overview", "总览"),
    "areas": ("Area by slice", "逐层面积"),
    "slice": ("slice", "层面"),
    "slices": ("Flagged slices", "需检查的层面"),
    "remarks": ("Remarks", "备注"),
    "whole": ("Whole target", "整体"),
    "prompts": ("Prompts", "提示"),
    "post": ("Post-processing", "后处理"),
    "no_post": ("none was done", "未进行后处理"),
    "provenance": ("How it was made", "生成信息"),
    "image": ("Image", "图像"),
    "grid": ("Grid", "网格"),
    "modality": ("Modality", "模态"),
    "window": ("Window", "窗宽窗位"),
    "axis": ("Slices along", "层面方向"),
    "model": ("Model", "模型"),
    "adapter": ("Adapter", "适配器"),
    "digest": ("SHA-256", "SHA-256"),
    "licence": ("Licence", "许可"),
    "software": ("Software", "软件"),
    "created": ("Created", "生成时间"),
    "mask": ("Mask", "掩膜"),
    "notes": ("Notes", "说明"),
    "patient": ("Patient", "患者"),
    "unknown": ("unknown", "未知"),
    "step": ("Step", "步骤"),
    "change": ("Volume before → after", "处理前 → 处理后体积"),
    "kind": ("Kind", "类型"),
    "where": ("Where", "位置"),
    "sign": ("Sign", "性质"),
    "positive": ("inside", "前景"),
    "negative": ("outside", "背景"),
    "whose": ("of target", "目标"),
    "disclaimer": (
        "Made by software without a physician. Every outline must be checked by a qualified person "
        "before it is used. Not a medical device.",
        "本报告由软件自动生成，所有轮廓在使用前必须由具备资质的人员核查。本软件不是医疗器械。",
    ),
}

_KINDS_ZH = {
    "box": "框",
    "point": "点",
    "scribble": "涂画",
    "mask": "掩膜",
    "text": "文字",
    "marginpoints": "边缘点",
    "lasso": "套索",
    "line": "线段",
}


def reason(kind: str, values: Mapping[str, Any], language: str) -> str:
    """Why something is shown, in words."""
    return REASONS[kind][LANGUAGES.index(language)].format(**values)


def labels(language: str) -> Mapping[str, str]:
    """Every label of the page.

    Raises:
        PromptsegError: The language is unknown.
    """
    if language not in LANGUAGES:
        raise PromptsegError(f"language {language!r} is unknown: use {' or '.join(LANGUAGES)}")
    at = LANGUAGES.index(language)
    return {key: pair[at] for key, pair in _LABELS.items()}


def prompt_rows(prompts: PromptSet, language: str = "en") -> list[dict[str, Any]]:
    """Kind, place, sign and target of every prompt, for a table."""
    return [_prompt_row(entry, language) for entry in prompts.to_dict()["prompts"]]


def _prompt_row(entry: Mapping[str, Any], language: str) -> dict[str, Any]:
    kind = str(entry["type"])
    return {
        "kind": _KINDS_ZH.get(kind, kind) if language == "zh" else kind,
        "target": entry.get("target", 1),
        "positive": entry.get("positive", True),
        "where": _where(entry),
    }


def _where(entry: Mapping[str, Any]) -> str:
    frame = "" if entry.get("frame", "voxel") == "voxel" else f" mm {str(entry['frame']).upper()}"
    if "at" in entry:
        return _numbers(entry["at"]) + frame
    if "lo" in entry:
        return f"{_numbers(entry['lo'])} … {_numbers(entry['hi'])}{frame}"
    if "words" in entry:
        return f"“{entry['words']}”"
    for key in ("voxels", "points"):
        if key in entry:
            return f"{len(entry[key])} {key}"
    return ""


def _numbers(values: Any) -> str:
    return "(" + ", ".join(f"{float(value):g}" for value in values) + ")"
