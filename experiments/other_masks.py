"""The part of a table's page about learned masks that were made for another text.

`python evaluate.py --run ROW/seed* --masks --record` puts the losses into the records.
"""

from experiments.formats import NOTHING, bounds, loss, markdown, signed
from experiments.runs import Table
from experiments.sections import PERCENT, finished_rows, has
from experiments.statistics import paired_difference

OTHER_MASKS = {
    "other_masks": "another window's",
    "mean_masks": "the mean",
    "random_masks": "random",
}


def other_masks(table: Table) -> str:
    """What a learned mask's input is worth; empty where no run was evaluated so."""
    if not has(table, "own_masks"):
        return ""
    header = ["row", "n", "own masks"]
    for name in OTHER_MASKS.values():
        header += [f"{name} − own", f"{PERCENT} interval"]
    lines = []
    for runs in finished_rows(table).values():
        if own := runs.values("own_masks"):
            cells = [runs.row.label, str(len(own)), loss(runs.mean("own_masks"))]
            for metric in OTHER_MASKS:
                difference = paired_difference(runs.values(metric), own)
                cells += (
                    [NOTHING, NOTHING]
                    if difference is None
                    else [signed(difference.interval.mean), bounds(difference.interval)]
                )
            lines.append(cells)
    text = (
        "Val loss of the last weights in evaluation, with each learned mask as the model makes it, and "
        "with another in its place: the one that it makes of another window; one number a channel, "
        "1 where the soft mask is 1/2 or more in the mean over the train windows; a draw for every "
        "element, of each channel's share of ones there. Nothing is trained for it."
    )
    return f"## Masks that were made for another text\n\n{text}\n\n{markdown(header, lines)}"
