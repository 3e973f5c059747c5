"""Labelled files through the stages of the worker, and what comes of it."""
