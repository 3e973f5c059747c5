"""Log lines: a constant message and fields; text on a terminal, JSON elsewhere; always to stderr."""

import logging
import sys

import structlog

from streamer.settings import Log


def set_up_logging(settings: Log) -> None:
    """Send log lines to stderr as the settings say. Call once, at the start of a process."""
    is_text = settings.format == "text" or (settings.format == "auto" and sys.stderr.isatty())
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        if is_text
        else structlog.processors.JSONRenderer(ensure_ascii=False)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(stream=sys.stderr, level=max(level, logging.ERROR), format="%(name)s: %(message)s")
    if level > logging.DEBUG:  # several lines a second while a broker is away; what matters of it is raised to us
        logging.getLogger("kafka").setLevel(logging.CRITICAL)
