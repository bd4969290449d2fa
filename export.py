"""Write a trained run in another library's format.

    python export.py --run DIR --to hf OUT

hf: a directory for Hugging Face's transformers, with weights, tokenizer and model card. Rows whose
dropouts rest in evaluation become a plain GPT-2; learned masks bring their own modelling file.
"""

import argparse
from importlib.util import find_spec
from pathlib import Path

from cli.errors import run_cli
from common.errors import UserError


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", required=True, metavar="DIR", help="a run's directory")
    parser.add_argument("--to", required=True, choices=["hf"], help="the format")
    parser.add_argument("out", type=Path, metavar="OUT", help="a new directory")
    parser.add_argument("--checkpoint", choices=["best", "last"], default="best")
    args = parser.parse_args()
    if find_spec("transformers") is None:
        raise UserError(
            "--to hf needs transformers: pip install -c constraints.txt -e '.[huggingface]'"
        )

    from huggingface.export import export_run
    from tracking.load import load_run

    export_run(load_run(args.run, args.checkpoint, "cpu", "float32"), args.out)
    print(args.out)


if __name__ == "__main__":
    run_cli(main)
