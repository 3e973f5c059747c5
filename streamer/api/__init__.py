"""The HTTP API: prompts, events, streams, and how a site fares."""
