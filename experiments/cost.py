"""The parts of a table's page on what its runs cost, and which of them did not finish."""

from experiments.formats import NOTHING, code, count, duration, markdown, memory, plain, quantity
from experiments.runs import Table
from experiments.sections import finished_rows, lines_of


def cost(table: Table) -> str:
    """Size of the models, and what a run took."""
    sizes, runs_took = {}, {}
    for name, runs in finished_rows(table).items():
        sizes[name] = [
            *(count(runs.mean(metric)) for metric in ("parameters", "trainable")),
            quantity(runs.mean("flops_per_token")),
            f"{runs.mean('epoch'):.1f}",
        ]
        peak = runs.values("memory_bytes").values()
        runs_took[name] = [
            count(runs.mean("tokens_per_s")),
            duration(runs.mean("time_s")),
            memory(max(peak) if peak else None),
        ]
    size_header = ["row", "parameters", "trainable", "FLOPs a token", "epochs"]
    cost_header = ["row", "tokens/s", "wall time", "peak memory"]
    text = (
        "Parameters leave out the positional embedding, as published; trainable ones don't. FLOPs "
        "are of forward and backward; epochs are passes over the training data."
    )
    machines = {
        (record.device.name, record.device.threads, record.device.compiled_kernels, record.compile)
        for record in table.finished
    }
    speed = (
        "Means over seeds; memory is the highest. Other work may have shared the machine: for speeds "
        "see `benchmarks/README.md`."
    )
    if len(machines) > 1:
        speed += (
            " **Device, threads, kernels or compile differ between these runs: compare no speeds.**"
        )
    return (
        f"## Size and cost\n\n{text}\n\n{markdown(size_header, lines_of(table, sizes))}\n\n"
        f"{speed}\n\n{markdown(cost_header, lines_of(table, runs_took))}"
    )


def unfinished(table: Table) -> str:
    """Runs that did not finish, with their errors, and rows that were not run; empty if none."""
    lines = [
        [runs.row.label, str(record.seed), record.status, plain(record.error or NOTHING)]
        for runs in table.rows.values()
        for record in runs.unfinished
    ]
    not_run = [runs.row.label for runs in table.rows.values() if runs.state == "not run"]
    if not lines and not not_run:
        return ""
    command = code(table.spec.command) if table.spec.command else "The same command"
    parts = [f"## Not finished\n\n{command} fills these gaps and leaves the rest."]
    parts += [markdown(["row", "seed", "status", "error"], lines, left=(1, 2, 3))] if lines else []
    parts += [f"Not run: {'; '.join(not_run)}."] if not_run else []
    return "\n\n".join(parts)
