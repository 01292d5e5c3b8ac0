"""What a model card must say before others get the model: its licence."""

import re
from pathlib import Path

from hiera_video.errors import UsageError
from hiera_video.export.model_card import LICENCES, licence_name
from hiera_video.weights.description import JSON, read_description, write_description
from hiera_video.weights.trained import NON_COMMERCIAL

CARD = "README.md"
FRONT_MATTER = re.compile(r"\A---\n(.*?)^---$", re.DOTALL | re.MULTILINE)
STATED = re.compile(r"^license:[ \t]*(\S+)[ \t]*$", re.MULTILINE)


def state_licence(folder: Path, chosen: str | None = None) -> None:
    """Write the licence of an export into its card and its ``model.json``.

    Args:
        folder: the export.
        chosen: such as ``apache-2.0``; None: what the first lines of its card state, if they do.

    Raises:
        UsageError: there is no card, or the weights have another licence already.
    """
    description, card = read_description(folder / JSON), _card(folder)
    chosen = chosen or stated_licence(card)
    if chosen is None:
        return
    if inherited := licence_name(description.licence):
        if chosen != inherited:
            raise UsageError(
                f"the licence cannot be {chosen}: by {JSON} the weights have "
                f"{description.licence}, from those that their training started from or from "
                "whoever published them"
            )
        return
    write_description(folder, description._replace(licence=chosen))
    card = card.replace(LICENCES[description.licence], f"{chosen}.")
    if stated_licence(card):
        card = STATED.sub(f"license: {chosen}", card, count=1)
    else:
        card = card.replace("---\n", f"---\nlicense: {chosen}\n", 1)
    (folder / CARD).write_text(card, encoding="utf-8")


def check_card(folder: Path, private: bool) -> str:
    """See that the card of an export states the licence that its weights have.

    Args:
        folder: the export.
        private: whether its owner alone will have it; then it may have none.

    Returns:
        One line for the user about the licence.

    Raises:
        UsageError: no card, or a licence that is missing or not that of the weights.
    """
    licence, stated = read_description(folder / JSON).licence, stated_licence(_card(folder))
    inherited = licence_name(licence)
    if inherited and stated != inherited:
        raise UsageError(
            f"{CARD} must state the licence that the weights have by {JSON}: put "
            f"`license: {inherited}` into its first lines"
        )
    if licence == NON_COMMERCIAL:
        return "licence: CC-BY-NC-4.0, not for commercial use, as that of Meta's weights"
    if stated:
        return f"licence: {stated}"
    fault = "is not known (of the weights that training started from)" if licence else "is missing"
    if not private:
        raise UsageError(f"the licence {fault}; name it with --license, or push without --public")
    return f"licence: it {fault}; name it before others get the model"


def stated_licence(card: str) -> str | None:
    """The licence in the front matter of a model card; None if it states none."""
    head = FRONT_MATTER.match(card)
    stated = head and STATED.search(head[1])
    return stated[1].lower() if stated else None


def _card(folder: Path) -> str:
    try:
        card = (folder / CARD).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UsageError(f"{folder / CARD}: a model card is needed; `export` writes one") from error
    if not FRONT_MATTER.match(card):
        raise UsageError(f"{folder / CARD}: must begin with ---, keys such as license, and ---")
    return card
