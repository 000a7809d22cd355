"""The service: a bridge, its encoders and galleries behind a small typed HTTP interface, and a page to look at them."""
