"""What is to be known of an answer, in the visitor's language.

Notes are English sentences wherever they are made: in reports, on stderr, in run manifests. The
page puts them into Chinese by their pattern; what a person or a file named stays as it is.
"""

from __future__ import annotations

import re
from functools import lru_cache

NOTES: tuple[tuple[str, str], ...] = (
    (
        "adapter {adapter} has taught an earlier coarse 3D view: today's is used as it ships; "
        "train the adapter again with --three-d",
        "适配器 {adapter} 训练的是旧版粗略三维视图：现使用自带的新版；"
        "请用 --three-d 重新训练该适配器",
    ),
    (
        "every voxel of the image is {value}: there is nothing to be seen in it",
        "影像的每个体素都是 {value}：其中没有可见的内容",
    ),
    (
        "{share} of the voxels are padding (below {low}): left out of the window",
        "{share} 的体素是填充值（低于 {low}）：未计入窗宽窗位",
    ),
    (
        "{share} of the voxels are far brighter than the rest (above {high}): left out of the "
        "window",
        "{share} 的体素远亮于其余部分（高于 {high}）：未计入窗宽窗位",
    ),
    (
        "the grey values are no Hounsfield units: window {name} is left out for {other}",
        "灰度值不是 HU 值：不使用窗 {name}，改用 {other}",
    ),
    (
        "the adapter was trained on {one}, this image was taken for {other}",
        "该适配器在 {one} 上训练，而此影像被判断为 {other}",
    ),
    (
        "the file's qform and sform lie {apart} mm apart: millimetres are taken by the sform; "
        "check that the target is where it should be",
        "文件的 qform 与 sform 相差 {apart} 毫米：毫米坐标按 sform 计算；请核对目标位置是否正确",
    ),
    (
        "the box of target {targets} is the single voxel {voxel}",
        "目标 {targets} 的框只有一个体素 {voxel}",
    ),
    (
        "targets {targets} have the same box: each voxel goes to the one the network is surer of",
        "目标 {targets} 的框相同：每个体素归网络更有把握的那一个",
    ),
    (
        "target {target} is a ring around the middle of its box: if what lies inside is meant, "
        "click there, or draw the box closer to it",
        "目标 {target} 是围绕框中心的一个环：若要的是环内的部分，请在其中点击，或把框画得更贴近它",
    ),
    ("target {target} came out empty: {why}", "目标 {target} 的结果为空：{why}"),
    (
        "nothing was found where its prompts point; give a box around it, a click inside it or "
        "another window",
        "提示所指之处没有找到；请在其周围画框、在其内部点击或换一个窗",
    ),
    (
        "{words} ({concept}) was judged absent from this volume by the adapter {adapter}; nearest "
        "others: {others}",
        "适配器 {adapter} 判断此影像中没有{words}（{concept}）；最接近的其他名称：{others}",
    ),
    (
        "{words} ({concept}) was found only where other targets are already",
        "{words}（{concept}）只在其他目标已占据的地方找到",
    ),
    (
        "{words} means the same as {others}, which was not found",
        "{words} 与 {others} 含义相同，而后者没有找到",
    ),
    (
        "{words} was not found: no mask on {where} is trusted by the network",
        "没有找到{words}：网络不信任{where}上的任何掩膜",
    ),
    (
        "{words} was not found: the likeliest of {count} masks on {where} is it with probability "
        "{chance}, less than {least}",
        "没有找到{words}：{where}上的 {count} 个掩膜中最可能的一个概率为 {chance}，低于 {least}",
    ),
    ("slice {index}", "第 {index} 层"),
    ("{count} slices", "{count} 层"),
    (
        "target {target} has a cross-section of {area} cm², the largest in training was {known}: "
        "check that it is not something else",
        "目标 {target} 的截面积为 {area} cm²，训练中最大为 {known}：请核对是否为其他结构",
    ),
    (
        "the adapter {adapter} does not say which orientation it was trained in, RAS is assumed: "
        'if its training files were stored otherwise, add "orientation": "LPS", or as they were, '
        "to its promptseg.json",
        "适配器 {adapter} 没有说明训练时的方位，按 RAS 处理：若训练文件以其他方位存储，请在其 "
        'promptseg.json 中加上 "orientation": "LPS" 或相应的方位',
    ),
)


def sentence(note: str, language: str) -> str:
    """A note as a sentence of its own; one that nobody put into Chinese stays English.

    Args:
        note: As a report holds it.
        language: `en` or `zh`.
    """
    said = in_chinese(note) if language == "zh" else None
    return f"{note[:1].upper()}{note[1:]}." if said is None else f"{said}。"


def in_chinese(note: str) -> str | None:
    """The note in Chinese, None if it follows no known pattern."""
    for pattern, chinese in _patterns():
        found = pattern.fullmatch(note)
        if found:
            values = {name: in_chinese(text) or text for name, text in found.groupdict().items()}
            return chinese.format(**values)
    return None


@lru_cache(maxsize=1)
def _patterns() -> tuple[tuple[re.Pattern[str], str], ...]:
    return tuple((_pattern(english), chinese) for english, chinese in NOTES)


def _pattern(english: str) -> re.Pattern[str]:
    parts = re.split(r"{(\w+)}", english)
    named = [f"(?P<{part}>.+?)" if n % 2 else re.escape(part) for n, part in enumerate(parts)]
    return re.compile("".join(named), re.DOTALL)
