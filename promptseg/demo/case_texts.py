"""Words of the tab of cases, in English and Chinese."""

from __future__ import annotations

CASE_TEXTS: dict[str, tuple[str, str]] = {
    "cases_tab": ("Cases", "病例"),
    "project": ("Project", "项目"),
    "who": ("Your name", "您的姓名"),
    "next_case": ("Next case", "下一病例"),
    "estimate": ("Estimate all", "全部预估"),
    "case_accept_next": ("Accept, next", "接受并继续"),
    "case_accept": ("Accept", "接受"),
    "case_reject": ("Reject", "排除"),
    "case_reason": ("Why reject", "排除原因"),
    "case_release": ("Give back", "退回"),
    "case_afresh": ("Start over", "重新开始"),
    "case_other": ("Take up their work", "接手他人工作"),
    "train": ("Train", "训练"),
    "train_stop": ("Stop", "停止"),
    "train_length": ("Length", "时长"),
    "steps_300": ("300 steps", "300 步"),
    "minutes_5": ("5 minutes", "5 分钟"),
    "minutes_20": ("20 minutes", "20 分钟"),
    "minutes_60": ("60 minutes", "60 分钟"),
    "learn": ("Learn from this visit", "从本次访问学习"),
    "labels_given": (
        "the project says which targets there are: no other can be added to a case",
        "项目已规定目标：病例中不能添加其他目标",
    ),
    "no_projects": (
        "No project is offered here. Start the page with promptseg demo --project DIR, where DIR "
        "was made by promptseg loop init.",
        "此处没有项目。请用 promptseg demo --project DIR 启动页面，"
        "DIR 由 promptseg loop init 创建。",
    ),
    "no_case_left": ("no case is left in this project", "此项目没有剩余病例"),
    "no_case_open": ("open a case first", "请先打开一个病例"),
    "open_elsewhere": (
        "{case} is open in another window of yours: go on there, or close it first",
        "{case} 已在您的另一窗口中打开：请在那里继续，或先关闭",
    ),
    "case_opened": (
        "{case}: prediction of version {version}, expected revision {effort:.0f} %. Look here "
        "first: {reason}.",
        "{case}：版本 {version} 的预测，预计修改 {effort:.0f} %。请先查看此处：{reason}。",
    ),
    "case_learned": (
        "{case}: what this visit learned says so. Correct it, then accept it.",
        "{case}：本次访问所学的结果。请修正后接受。",
    ),
    "case_bare": (
        "{case}: nothing was learned yet. Segment it with prompts, propagate, accept.",
        "{case}：尚未学习。请用提示分割、三维传播，然后接受。",
    ),
    "case_unreadable": (
        "{case} cannot be read: {error}; Reject it, or Give back",
        "{case} 无法读取：{error}；请排除或退回",
    ),
    "case_again": (
        "{case} was accepted before; this is that mask.",
        "{case} 之前已被接受；这是当时的掩膜。",
    ),
    "case_back": (
        "{case}: your unfinished work of {when} is back. Start over gives the prediction.",
        "{case}：您 {when} 的未完成工作已恢复。“重新开始”给出预测。",
    ),
    "case_others": (
        " Someone else's unfinished work of {when} is kept: Take up their work.",
        " 保留有他人 {when} 的未完成工作：可“接手他人工作”。",
    ),
    "case_taken": ("{case}: the work of {who} from {when}.", "{case}：{who} 于 {when} 的工作。"),
    "accepted_meanwhile": (
        "{case} was accepted by someone else meanwhile; your work on it is kept: open it again "
        "from the list to replace theirs",
        "{case} 已被他人接受；您的工作已保留：请从列表重新打开以替换",
    ),
    "propagate_first": (
        "only some slices are segmented: Propagate in 3D first, then accept",
        "仅部分切片已分割：请先三维传播再接受",
    ),
    "accept_empty": (
        "{case} has no mask: Accept once more if nothing is there, or Reject it",
        "{case} 没有掩膜：若确实没有目标请再次按“接受”，或排除",
    ),
    "accepted": (
        "{case} accepted after {spent}{revised}{held}.",
        "{case} 已接受，用时 {spent}{revised}{held}。",
    ),
    "revised": (", revised by {revision:.1f} %", "，修改 {revision:.1f} %"),
    "kept_back": ("; it is kept for measuring", "；保留用于评估"),
    "rejected": ("{case} is left out.", "{case} 已排除。"),
    "released": (
        "{case} was given back; your work on it is kept.",
        "{case} 已退回；您的工作已保留。",
    ),
    "estimating": ("Predicting the cases in the background.", "正在后台预测病例。"),
    "estimated": ("Every case has a prediction.", "所有病例均已有预测。"),
    "train_first": (
        "nothing was learned yet: accept some cases and train first",
        "尚未学习：请先接受一些病例并训练",
    ),
    "training": ("Training in the background.", "正在后台训练。"),
    "stopped": (
        "Training was stopped; Train goes on where it stood.",
        "训练已停止；按“训练”可继续。",
    ),
    "reverted": ("Version {version} is in use.", "正在使用版本 {version}。"),
    "nothing_to_learn": (
        "nothing to learn from: accept a case, or propagate a mask on an image of your own",
        "没有可学习的内容：请接受一个病例，或在自己的影像上得到三维掩膜",
    ),
    "learning": ("Learning", "学习中"),
    "learned": (
        "Learned from {count} case(s) in {seconds:.0f} s; the next image is answered with it.",
        "已从 {count} 个病例学习，用时 {seconds:.0f} 秒；下一影像将使用所学结果。",
    ),
    "lessons": (
        "{learned} learned from, {waiting} accepted since",
        "已学习 {learned} 个，此后接受 {waiting} 个",
    ),
    "status_new": ("new", "未看"),
    "status_mine": ("open with you", "您已打开"),
    "status_open": ("open with {who} since {when}", "{who} 自 {when} 打开"),
    "status_accepted": ("accepted by {who}", "{who} 已接受"),
    "status_rejected": ("left out", "已排除"),
    "is_held": ("measures", "用于评估"),
    "draft_mine": ("your work of {when}", "您 {when} 的工作"),
    "draft_other": ("unfinished work of {when}", "{when} 的未完成工作"),
    "expected": ("expected revision", "预计修改"),
    "expected_at": ("about {effort:.0f} %", "约 {effort:.0f} %"),
    "revised_by": ("{revision:.0f} %", "{revision:.0f} %"),
    "counts": (
        "{new} new · {open} open · {accepted} accepted · {rejected} left out",
        "{new} 未看 · {open} 打开 · {accepted} 已接受 · {rejected} 已排除",
    ),
    "mean_effort": (
        "revised by {revision:.0f} % on average, {spent} a case",
        "平均修改 {revision:.0f} %，每例 {spent}",
    ),
    "column_case": ("Case", "病例"),
    "column_status": ("Status", "状态"),
    "column_revision": ("Revision", "修改"),
    "column_time": ("Time", "用时"),
    "versions": ("Versions", "版本"),
    "no_version": ("no version yet", "尚无版本"),
    "version": ("Version {number}", "版本 {number}"),
    "version_start": ("the beginning", "起始版本"),
    "version_cases": ("{count} cases", "{count} 个病例"),
    "not_measured": ("not measured", "未评估"),
    "in_use": ("in use", "使用中"),
    "not_better": ("not better", "无改进"),
    "use_it": ("Use", "使用"),
    "curve": ("Training of version {version}", "版本 {version} 的训练"),
    "curve_loss": ("loss {loss:.3f} at step {step}", "第 {step} 步损失 {loss:.3f}"),
    "curve_begins": ("starting", "开始"),
    "curve_ends": ("measuring on held-back cases", "正在保留病例上评估"),
    "curve_elsewhere": ("started by another program", "由其他程序启动"),
    "curve_interrupted": ("interrupted: Train goes on with it", "已中断：按“训练”继续"),
    "curve_failed": ("Training failed: {error}", "训练失败：{error}"),
    "prediction_failed": ("cannot be predicted: {error}", "无法预测：{error}"),
    "clock_time": ("{minutes}:{seconds:02d}", "{minutes}:{seconds:02d}"),
}
