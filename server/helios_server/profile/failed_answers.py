"""The answers that did not pass, side by side: for the person who wrote the tasks.

Called by `command.py` where nobody waits for a document. One block a task, a line for each option; what an
option passes is said in one word.
"""

from __future__ import annotations

from helios_server.profile.tasks import Answer, Answered

_WIDTH = 100
"""Characters of an answer, and of a reason, that are shown."""


def show(found: Answered) -> None:
    """Every task that some option fails, on stdout."""
    for place, task in enumerate(found.tasks):
        told = {option: answers[place] for option, answers in found.answers.items()}
        if all(answer.judged.passes for answer in told.values()):
            continue
        print(f"\n{task.name}: {_line(task.prompt or task.messages[-1].content)}")
        width = max(len(str(option)) for option in told)
        for option, answer in told.items():
            print(f"  {str(option).ljust(width)}  {_said(answer)}")


def _said(answer: Answer) -> str:
    if answer.judged.passes:
        return f"passes  {_line(answer.text)}"
    return f"fails   {_line(answer.text)} [{_line(answer.judged.why)}]"


def _line(text: str) -> str:
    """On one line, as long as it may be."""
    line = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text.strip())
    return line if len(line) <= _WIDTH else line[: _WIDTH - 1] + "…"
