"""The tab of cases: projects of `promptseg loop` worked on from the page."""
