"""Write text with a trained run: python sample.py --run DIR --prompt "The"."""

import argparse

from cli.arguments import positive, seed, temperature
from cli.errors import run_cli


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True, metavar="DIR", help="a run's directory")
    parser.add_argument("--prompt", default="The", help="text to go on from")
    parser.add_argument("--tokens", type=positive, default=200, help="how many to write")
    parser.add_argument("--samples", type=positive, default=1, help="how many texts")
    parser.add_argument(
        "--temperature", type=temperature, default=0.8, help="0: always the likeliest"
    )
    parser.add_argument("--top-k", type=positive, default=200, help="draw among the k likeliest")
    parser.add_argument("--seed", type=seed, default=0)
    parser.add_argument("--checkpoint", choices=["best", "last"], default="best")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    args = parser.parse_args()

    from data.tokenizers import open_tokenizer
    from tracking.load import load_run
    from training.sample import generate

    run = load_run(args.run, args.checkpoint, args.device)
    tokenizer = open_tokenizer(run.cfg.data.tokenizer, run.cfg.data.vocab_size)
    prompt = tokenizer.encode(args.prompt).tolist()
    for number in range(args.samples):
        tokens = generate(
            run.model,
            run.machine,
            prompt,
            args.tokens,
            temperature=args.temperature,
            top_k=args.top_k,
            seed=args.seed + number,
        )
        print(tokenizer.decode([*prompt, *tokens]))


if __name__ == "__main__":
    run_cli(main)
