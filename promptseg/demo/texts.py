"""Every word of the page, in English and Chinese."""

from __future__ import annotations

from typing import Literal

from promptseg.demo.case_texts import CASE_TEXTS

Language = Literal["en", "zh"]
LANGUAGES: dict[str, Language] = {"English": "en", "中文": "zh"}

TEXTS: dict[str, tuple[str, str]] = {
    "title": ("promptseg", "promptseg"),
    "subtitle": ("prompts to 3D masks", "提示生成三维分割"),
    "notice": ("Research software, not a medical device", "研究软件，非医疗器械"),
    "theme": ("Light / dark", "浅色 / 深色"),
    "language": ("Language", "语言"),
    "open": ("Open image", "打开影像"),
    "sample": ("Use sample", "示例影像"),
    "image": ("Image", "影像"),
    "no_image": ("No image is open.", "尚未打开影像。"),
    "welcome": (
        "Open a CT or MRI (NIfTI, DICOM files or a zip of them), or use the sample.",
        "请打开 CT 或 MRI（NIfTI、DICOM 文件或其压缩包），或使用示例影像。",
    ),
    "voxels": ("voxels", "体素"),
    "model": ("Model", "模型"),
    "adapter": ("Adapter", "适配器"),
    "none": ("none", "无"),
    "axis": ("Slices", "切面"),
    "axial": ("Axial", "轴位"),
    "coronal": ("Coronal", "冠状"),
    "sagittal": ("Sagittal", "矢状"),
    "preset": ("Window shown", "显示窗"),
    "model_window": ("Window for model", "模型输入窗"),
    "custom": ("as set below", "自定义"),
    "low": ("Darkest value", "最暗值"),
    "high": ("Brightest value", "最亮值"),
    "opacity": ("Mask opacity", "掩膜不透明度"),
    "doubt": ("Show uncertainty", "显示不确定性"),
    "targets": ("Targets", "目标"),
    "target": ("target {number}", "目标 {number}"),
    "target_name": ("Name", "名称"),
    "colour": ("Colour", "颜色"),
    "add_target": ("New target", "新建目标"),
    "tool": ("Prompt with", "提示方式"),
    "plus": ("+ Point", "+ 点"),
    "minus": ("− Point", "− 点"),
    "box": ("Box", "框"),
    "brush": ("+ Brush", "+ 画笔"),
    "eraser": ("− Brush", "− 画笔"),
    "words": ("Words", "文字"),
    "words_hint": ("for example: left kidney", "例如：left kidney"),
    "add_words": ("Add", "添加"),
    "undo": ("Undo", "撤销"),
    "redo": ("Redo", "重做"),
    "clear": ("Clear", "清除"),
    "propagate": ("Propagate in 3D", "三维传播"),
    "cancel": ("Cancel", "取消"),
    "refine": ("Refine", "修正"),
    "suggest": ("Next slice to check", "下一张待查切片"),
    "downloads": ("Download", "下载"),
    "mask": ("Mask", "掩膜"),
    "prompts": ("Prompts", "提示"),
    "report": ("Run report", "运行报告"),
    "review": ("Quality report", "质量报告"),
    "post": ("Post-processing", "后处理"),
    "session": ("Session", "会话"),
    "format": ("Format", "格式"),
    "slices_tab": ("Slices", "切片"),
    "surface_tab": ("3D surface", "三维表面"),
    "code_tab": ("As Python", "Python 代码"),
    "surface": ("Surface of the masks", "掩膜表面"),
    "code": ("What was just done, as Python", "刚才的操作（Python）"),
    "slice": ("Slice", "切片"),
    "viewer": (
        "Image viewer. Arrow keys change the slice, Shift with arrow keys moves the cross, Enter "
        "sets a point, keys 1 to 5 choose the tool.",
        "影像视图。方向键换切片，Shift 加方向键移动十字，回车放置点，数字 1 至 5 选择工具。",
    ),
    "help": (
        "Left click: prompt · right click: − · wheel or arrow keys: slice · 1–5: tool",
        "左键：提示 · 右键：− · 滚轮或方向键：换切片 · 1–5：工具",
    ),
    "second_corner": ("Click the opposite corner, or Esc", "点击对角，或按 Esc"),
    "opened": ("{name} is open. Click on what you want.", "已打开 {name}。请点击目标。"),
    "opened_undo": (
        "{name} is open. Click on what you want; Undo brings back what was open before.",
        "已打开 {name}。请点击目标；按“撤销”可恢复之前的内容。",
    ),
    "answered": (
        "Preview in {seconds:.2f} s. Propagate carries it through the volume.",
        "预览用时 {seconds:.2f} 秒。按“三维传播”推广到整个影像。",
    ),
    "sketched": (
        "Preview in {seconds:.2f} s; at first sight it reaches from slice {first} to {last} "
        "(dashed). Propagate carries it through the volume.",
        "预览用时 {seconds:.2f} 秒；初步估计范围为第 {first} 至 {last} 层（虚线）。"
        "按“三维传播”推广到整个影像。",
    ),
    "pending": (
        "{count} correction(s) previewed. Refine takes them up in 3D.",
        "已预览 {count} 个修正。按“修正”应用到三维。",
    ),
    "propagated": (
        "3D mask in {seconds:.1f} s. Correct it on any slice, then Refine.",
        "三维掩膜用时 {seconds:.1f} 秒。可在任意切片修正，然后按“修正”。",
    ),
    "refined": ("Refined in {seconds:.1f} s.", "修正用时 {seconds:.1f} 秒。"),
    "undone": ("Taken back.", "已撤销。"),
    "redone": ("Done again.", "已重做。"),
    "cleared": (
        "Prompts and masks are cleared. Undo brings them back.",
        "已清除提示和掩膜。按“撤销”可恢复。",
    ),
    "brought_back": ("{name}: prompts and masks are back.", "{name}：提示和掩膜已恢复。"),
    "taken_up": ("{name}: your prompts and masks are back.", "{name}：您的提示和掩膜已恢复。"),
    "offer": (
        "Your work on {name}{when} is kept: {prompts} prompt(s), {masks}.",
        "您在 {name} 上的工作已保留{when}：{prompts} 个提示，{masks}。",
    ),
    "offer_when": (" from {when}", "（{when}）"),
    "with_masks": ("with masks", "含掩膜"),
    "without_masks": ("no masks yet", "尚无掩膜"),
    "offer_open": (" Open that image again to go on.", "请重新打开该影像以继续。"),
    "bring_back": ("Bring back", "恢复"),
    "forget": ("Forget", "不再保留"),
    "forgotten": ("It is forgotten.", "已删除。"),
    "nothing_kept": ("nothing is kept any more", "没有可恢复的内容"),
    "other_image": (
        "that work was done on another image: open {name} first",
        "该工作属于另一影像：请先打开 {name}",
    ),
    "ended": (
        "This visit has ended: it was unused for long, or the server was started again or needed "
        "room. Open the image again; the prompts and masks of the same image come back.",
        "本次访问已结束：长时间未使用，或服务器重启、内存不足。请重新打开影像；同一影像的提示和掩膜可恢复。",
    ),
    "gone": ("This visit has ended", "本次访问已结束"),
    "gone_why": (
        "It was unused for long, or the server was started again or needed room. Load the page "
        "again: what was kept is offered there.",
        "长时间未使用，或服务器重启、内存不足。请重新载入页面，已保留的内容可在那里恢复。",
    ),
    "lost": ("The server cannot be reached", "无法连接服务器"),
    "lost_why": (
        "Nothing can be done until it answers again; this page keeps asking.",
        "恢复连接前无法操作；本页会继续尝试。",
    ),
    "reload": ("Load the page again", "重新载入页面"),
    "series": ("Series", "序列"),
    "choose_series": ("choose one…", "请选择…"),
    "no_series": ("Cancel", "取消"),
    "several_series": (
        "{name} holds {count} volumes: choose one above the picture.",
        "{name} 包含 {count} 个三维影像：请在图像上方选择。",
    ),
    "nothing_waits": ("choose a file first", "请先选择文件"),
    "absent": (
        "“{words}” ({concept}) was not found in this image: nothing was added.",
        "影像中未找到“{words}”（{concept}）：未添加任何目标。",
    ),
    "same_words": (
        "“{words}” means the same as “{same}” (target {target}): nothing was added.",
        "“{words}”与“{same}”含义相同（目标 {target}）：未添加任何目标。",
    ),
    "cancelled": ("Cancelled; the mask is as before.", "已取消，掩膜未变。"),
    "cancelling": ("Cancelling…", "正在取消…"),
    "chosen": ("Using {model}.", "正在使用 {model}。"),
    "chosen_again": (
        "Using {model}. Propagate makes the 3D mask anew, Undo brings the former one back.",
        "正在使用 {model}。按“三维传播”重新生成掩膜，按“撤销”恢复原掩膜。",
    ),
    "windowed": ("The model sees window {window}.", "模型输入窗：{window}。"),
    "windowed_again": (
        "The model sees window {window}. Propagate makes the 3D mask anew, Undo brings the former "
        "one back.",
        "模型输入窗：{window}。按“三维传播”重新生成掩膜，按“撤销”恢复原掩膜。",
    ),
    "check_here": ("Check slice {index}: {why}", "请检查切片 {index}：{why}"),
    "doubted": (
        "Uncertainty in {seconds:.1f} s; orange is doubtful.",
        "不确定性用时 {seconds:.1f} 秒；橙色表示可疑。",
    ),
    "nothing_to_check": ("No slice stands out.", "没有需要特别检查的切片。"),
    "all_checked": (
        "You have seen every slice that stands out; once more begins again.",
        "所有需要检查的切片均已查看；再按一次将重新开始。",
    ),
    "saved": ("{name} is ready.", "{name} 已就绪。"),
    "saved_pending": (
        "{name} is ready; {count} correction(s) are not in it: Refine first to take them up.",
        "{name} 已就绪；其中不含 {count} 个未应用的修正，请先按“修正”。",
    ),
    "no_stroke": (
        "As scribbles to learn from they lack a stroke inside {names}.",
        "作为涂画标注尚缺 {names} 内部的笔画。",
    ),
    "no_background": (
        "As scribbles to learn from they lack a stroke outside (− Brush).",
        "作为涂画标注尚缺外部笔画（− 画笔）。",
    ),
    "edge_background": (
        "As scribbles to learn from: strokes outside lie only at the edge of the image, which "
        "tells nothing of the border; draw some beside the target.",
        "作为涂画标注：外部笔画仅在影像边缘，无法说明边界；请在目标旁添加。",
    ),
    "segment": ("Segmenting", "分割中"),
    "encode": ("Reading slices", "编码切片"),
    "working": ("Working", "处理中"),
    "busy": (
        "this page is still computing: wait for it or press Cancel",
        "正在计算：请等待或按“取消”",
    ),
    "open_first": ("open an image first", "请先打开影像"),
    "prompt_first": ("give a prompt first", "请先给出提示"),
    "no_mask": ("there is no mask yet: give a prompt first", "还没有掩膜：请先给出提示"),
    "wrong_axis": (
        "boxes and strokes belong on {axis} slices, along which this mask runs: switch to them, "
        "or Clear to start on these",
        "框和画笔须在{axis}切片上使用（本次分割沿此方向）：请切换，或清除后重新开始",
    ),
    "failed": ("Failed: {error}", "出错：{error}"),
    "refused": ("{error}", "未执行：{error}"),
    "ml": ("ml", "毫升"),
    "quality": ("quality {score:.2f}", "质量 {score:.2f}"),
    **CASE_TEXTS,
}


def say(language: Language, key: str, **values: object) -> str:
    """One text in a language, its places filled in."""
    return TEXTS[key][0 if language == "en" else 1].format(**values)
