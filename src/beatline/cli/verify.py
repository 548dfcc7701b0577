"""`beatline verify` and `beatline doctor`: is what beatline wrote whole?"""

from pathlib import Path

from beatline.cli.options import Parser, is_ray, option
from beatline.core.errors import UserError


def verify(arguments: list[str]) -> None:
    """Verifies, or repairs."""
    from beatline.data import verify as verification

    form = "beatline verify FOLDER [--engine ray | --repair [CONFIG] [--section.setting VALUE ...]]"
    if "--help" in arguments or "-h" in arguments:
        print(
            f"usage: {form}\n\nFinds every damaged or missing file of a folder that beatline made; --repair "
            f"decodes the damaged shards of a store again."
        )
        return
    on_ray = is_ray(option(arguments, "--engine"))
    if not arguments or arguments[0].startswith("-") or arguments[1:2] not in ([], ["--repair"]):
        raise UserError(
            "bad-usage",
            "beatline verify",
            "it takes a folder, and --repair after that",
            f"the form is: {form}",
        )
    folder = Path(arguments[0])
    if on_ray and len(arguments) == 1:
        verification.verify_on_ray(arguments[0])
        return
    if on_ray or "://" in arguments[0]:
        raise UserError(
            "bad-usage",
            "beatline verify",
            "an address is verified by Ray, and only a folder here can be repaired",
            f"the form is: {form}",
        )
    if len(arguments) == 1:
        verification.verify(folder)
        return
    from beatline import config

    of_the_run, settings = folder.parent / "config.yaml", arguments[2:]
    if settings and not settings[0].startswith("-"):
        chosen = settings.pop(0)
    elif of_the_run.exists():
        chosen = str(of_the_run)
    else:
        raise UserError(
            "bad-usage",
            f"cannot repair {folder}",
            "it does not say which configuration it was prepared with",
            f"name it: {form}",
        )
    verification.repair(folder, config.load(chosen, settings))


def doctor(arguments: list[str]) -> None:
    """Prints facts, and verifies the runs."""
    from beatline.cli.machine import print_facts
    from beatline.data import verify as verification

    parser = Parser("doctor", "Says what this machine has, and whether run folders are whole.")
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN")
    runs = parser.parse_args(arguments).runs
    print_facts()
    damaged: UserError | None = None
    for run in runs:
        try:
            verification.verify(run)
        except UserError as error:
            damaged = damaged or error
    if damaged:
        raise damaged
