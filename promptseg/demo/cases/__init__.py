"""The projects that a server offers: drafts, trainings and predictions made ahead."""
