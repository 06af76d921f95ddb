"""The web demo: see it and click it.

`promptseg demo` serves a page on 127.0.0.1; `promptseg.demo.api` lists what a program can call.
Needs the `demo` extra; nothing here is imported by the rest of the package.
"""
