"""Feedback: wrappers with a memory of what was not sent."""

from .error_feedback import ErrorFeedback

__all__ = ["ErrorFeedback"]
