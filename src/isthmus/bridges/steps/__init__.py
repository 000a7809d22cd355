"""The kinds of step that routes are made of, each checked against its arrays and run by numpy alone."""
