"""Exercises that grade themselves: which check fails, why, and a hint."""

from llmbook.grading._core import Check, Exercise, Report, grade, load

__all__ = ["Check", "Exercise", "Report", "grade", "load"]
