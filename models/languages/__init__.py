"""Prompts in other languages than English: `reading` says how one is read, `multilingual` embeds it."""
