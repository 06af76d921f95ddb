"""The tab of cases: what a person does with a case of `promptseg loop` on the page."""
