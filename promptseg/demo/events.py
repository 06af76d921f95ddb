"""Everything on the page that something listens to."""

from __future__ import annotations

import gradio as gr

from promptseg.demo.case_events import connect_cases
from promptseg.demo.image_events import connect_image
from promptseg.demo.parts import Page
from promptseg.demo.prompt_events import connect_prompts, connect_work
from promptseg.demo.result_events import connect_results
from promptseg.demo.screen import Screen
from promptseg.demo.server import Server
from promptseg.demo.view_events import connect_targets, connect_view


def connect(page: Page, server: Server, blocks: gr.Blocks) -> None:
    """Connect a page with the actions on a server."""
    screen = Screen(page, server)
    connect_image(screen, blocks)
    connect_view(screen)
    connect_targets(screen)
    connect_prompts(screen)
    connect_work(screen)
    connect_results(screen)
    connect_cases(screen, blocks)
