"""
What the model says to coding agents: it calls their tools, sees what these answered, and comes to an end.

`tests/clients/claude_code.py` and `tests/clients/codex.py` play the agents.
"""

from collections.abc import Mapping, Sequence

from tests.providers.refusal import needs
from tests.providers.scenario import PNG, TEXT, THOUGHT, Asked, Spent, ToolCall, Turn

READ = ToolCall("Read", {"file_path": "/repo/README.md"})
BASH = ToolCall("Bash", {"command": "make test", "description": "Run the tests", "timeout": 60000})
LOOK = ToolCall("mcp__browser__screenshot", {})
EDIT = ToolCall("Edit", {"file_path": "/repo/a.py", "old_string": 'x = "ü"\n', "new_string": "x = 1.0\n"})

EXEC = ToolCall("exec_command", {"cmd": "ls -la", "yield_time_ms": 1000})
PATCH = '*** Begin Patch\n*** Update File: a.py\n@@\n-x = "ü"\n+x = 1.0\n*** End Patch\n'
VIEW = ToolCall("view_image", {"path": "/repo/shot.png"})

RESULTS: Mapping[str, str] = {
    READ.name: "     1\t# Größe\n     2\tA project.\n",
    BASH.name: "make: *** [test] Error 1",
    LOOK.name: "",  # an image
    EDIT.name: "The file /repo/a.py has been updated.",
    EXEC.name: "total 0\n-rw-r--r-- a.py\n",
    "apply_patch": "Success. Updated the following files:\nM a.py\n",
    VIEW.name: "",
}
LOOKS = "I look at it."


def claude_code(asked: Asked) -> Turn:
    """Three turns: two calls at once of which one fails, then one that shows an image and an edit, then the end."""
    needs("You are Claude Code" in asked.system, f"the agent's system prompt, not {asked.system[:80]!r}")
    needs(not asked.stream or asked.thinks, "to be asked for thinking")
    _is_answered(asked)
    turns = [
        _calling(READ, BASH),
        _calling(LOOK, EDIT),
    ]
    return _next(asked, turns)


def codex(asked: Asked) -> Turn:
    """Three turns: a command and a patch, where the agent may offer one, then an image, then the end."""
    needs("You are Codex" in asked.system, f"the agent's instructions, not {asked.system[:80]!r}")
    _is_answered(asked)
    patches = [_patch(name) for name in asked.tools if name.endswith("apply_patch")]
    return _next(asked, [_calling(EXEC, *patches), _calling(VIEW)])


def _patch(name: str) -> ToolCall:
    """The patch: as a text, or as the one argument of a tool that stands for one that takes a text."""
    return ToolCall(name, {}, free=PATCH) if name == "apply_patch" else ToolCall(name, {"text": PATCH})


def _calling(*calls: ToolCall) -> Turn:
    return Turn(LOOKS, thought=THOUGHT, calls=calls, spent=Spent(reasoning=4))


def _is_answered(asked: Asked) -> None:
    """Refuse the request when a tool's answer is not what the agent said."""
    for result in asked.answered:
        name = "apply_patch" if result.name.endswith("apply_patch") else result.name
        said = RESULTS[name].strip()
        needs(said in _plain(result.text), f"{said!r} as the answer of {name}, not {result.text!r}")


def _plain(text: str) -> str:
    """*text* without what JSON makes of it, for the protocols that wrap answers into an object."""
    return text.replace("\\n", "\n").replace("\\t", "\t").encode().decode()


def _next(asked: Asked, turns: Sequence[Turn]) -> Turn:
    """The turn after as many answers as the turns before it had calls."""
    answered = len(asked.answered)
    for turn in turns:
        if not answered:
            return turn
        answered -= len(turn.calls)
    needs(answered == 0, f"the answers of all calls, not {len(asked.answered)}")
    needs(list(asked.images) == [("image/png", PNG)], f"the one image, not {len(asked.images)}")
    return Turn(TEXT)
