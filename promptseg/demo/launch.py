"""Starting the server."""

from __future__ import annotations

import hmac
import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

# Before gradio is imported: it reads both then, and asks for nothing on the network.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_OFFLINE"] = os.environ.get("HF_HUB_OFFLINE", "1")

import gradio as gr

from promptseg.demo.api import add_api
from promptseg.demo.case_api import add_case_api
from promptseg.demo.events import connect
from promptseg.demo.heap import bound_heaps
from promptseg.demo.loop.listing import PARTS, listed
from promptseg.demo.page import build_page
from promptseg.demo.server import Server
from promptseg.errors import PromptsegError

CSS = Path(__file__).parent / "page.css"
FILES_KEPT_S = 1800


def build(server: Server) -> gr.Blocks:
    """The app of one server."""
    models, visits = server.models, server.visits
    with gr.Blocks(
        title="promptseg", analytics_enabled=False, fill_width=True, fill_height=True,
        delete_cache=(300, FILES_KEPT_S),
    ) as blocks:  # fmt: skip
        names = models.names()
        adapters = models.adapters(visits.model)
        offered = server.projects.names
        page = build_page(names, adapters, visits.model, visits.adapter, offered)
        connect(page, server, blocks)
        add_api(server)
        add_case_api(server)
    return blocks.queue(max_size=64)


def theme() -> Any:
    """Plain and quiet, with the fonts of the system."""
    from gradio.themes import Base, colors, sizes

    return Base(
        primary_hue=colors.teal,
        neutral_hue=colors.slate,
        text_size=sizes.text_sm,
        spacing_size=sizes.spacing_sm,
        radius_size=sizes.radius_sm,
        font=["system-ui", "Segoe UI", "Noto Sans", "Noto Sans CJK SC", "sans-serif"],
        font_mono=["ui-monospace", "Consolas", "monospace"],
    )


def serve(
    server: Server,
    host: str = "127.0.0.1",
    port: int = 7860,
    password: str | None = None,
    block: bool = True,
) -> tuple[gr.Blocks, str]:
    """Serve the page.

    Args:
        server: Networks, visits and limits.
        host: Address to listen on; any but this machine's own needs a password.
        port: Port, 0 for a free one.
        password: Asked for on the page, with any user name; None for none.
        block: False to return at once.

    Returns:
        The app and its address.

    Raises:
        PromptsegError: A password is needed, or the port cannot be used.
    """
    if host not in ("127.0.0.1", "localhost", "::1") and not password:
        raise PromptsegError(
            f"host is {host!r}, which others can reach: set --password or stay on 127.0.0.1"
        )
    bound_heaps()
    server.uploads.mkdir(parents=True, exist_ok=True)
    os.environ["GRADIO_TEMP_DIR"] = str(server.uploads)
    server.visits.keep_sweeping(also=server.keeper.sweep)
    threading.Thread(target=_warm, args=(server,), daemon=True).start()
    blocks = build(server)
    try:
        app, address, _ = blocks.launch(
            server_name=host,
            server_port=port or _free_port(),
            auth=None if not password else _checker(password),
            auth_message="promptseg",
            max_file_size=server.max_upload,
            share=False,
            show_error=True,
            run_history=False,
            enable_monitoring=False,
            ssr_mode=False,
            quiet=True,
            prevent_thread_lock=True,
            footer_links=[],
            theme=theme(),
            css=CSS.read_text(encoding="utf-8"),
            allowed_paths=[str(server.folder)],
            max_threads=40,
        )
    except OSError as error:
        raise PromptsegError(f"port {port} cannot be used: {error}; give another --port") from error
    add_pulse(app, server)
    if block:
        blocks.block_thread()
    return blocks, address


def add_pulse(app: Any, server: Server) -> None:
    """Let pages ask whether their visit is still held, and how its project stands.

    Asking does not count as use. Who knows the unguessable name of a visit may ask.
    """

    def pulse(ident: str) -> dict[str, bool]:
        return {"alive": server.visits.alive(ident)}

    def cases(ident: str, part: str) -> dict[str, str | None]:
        visit = server.visits.called(ident)
        if visit is None or part not in PARTS:
            return {"html": None}
        return {"html": listed(visit, server, part)}

    for path, answer in (("visits/{ident}", pulse), ("cases/{ident}/{part}", cases)):
        app.add_api_route(f"/promptseg/{path}", answer, methods=["GET"])
        app.router.routes.insert(0, app.router.routes.pop())


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _checker(password: str) -> Any:
    def allowed(name: str, given: str) -> bool:
        return hmac.compare_digest(given.encode(), password.encode())

    return allowed


def _warm(server: Server) -> None:
    """Load the first network before anyone asks for it."""
    with suppress(PromptsegError):
        server.models.segmenter(server.visits.model, server.visits.adapter)
