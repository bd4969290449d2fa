"""A process that has imported torch already, and forks training runs on demand.

`python -m tests.soak.zygote` reads one JSON request a line: {"start": [arguments of train.py],
"plant": [[name, arguments], ...], "output": path, "environment": {name: value}, "script": another
file, or a module} answers with the new process's id, and {"wait": pid} with its exit code, negative
for a signal. Each run is a real process, which takes real signals, and starts in a hundredth of the
time that importing takes.
"""

import json
import os
import runpy
import sys
import traceback
from typing import Any

import datasets  # noqa: F401
import torch
import torch._dynamo  # torch.optim imports it at first use

import tracking.load
import tracking.record
import tracking.report  # noqa: F401
from data.tokenizers import open_tokenizer
from tests.soak import plants


def serve() -> None:
    torch.set_num_threads(1)
    open_tokenizer("gpt2", 512).byte_lengths()  # kept: the runs have it from the start
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            answer = os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])
        else:
            answer = os.fork() or become(request)
        print(answer, flush=True)


def become(request: dict[str, Any]) -> int:
    """Be `python train.py ...` from here on."""
    output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for standard in (1, 2):
        os.dup2(output, standard)
    os.environ |= request.get("environment", {})
    script = request.get("script", "train.py")
    sys.argv = [script, *request["start"]]
    code: Any = 0
    try:
        for name, arguments in request["plant"]:
            getattr(plants, name)(*arguments)
        if script.endswith(".py"):
            runpy.run_path(script, run_name="__main__")
        else:
            runpy.run_module(script, run_name="__main__", alter_sys=True)
    except SystemExit as stop:
        code = stop.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    serve()
