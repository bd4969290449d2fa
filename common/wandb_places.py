"""Where things are on W&B: our project, a run's record, and a person's key."""

import netrc
import os
from pathlib import Path
from urllib.parse import urlsplit

PROJECT = "learned-dropout-gpt"  # as configs/tracker/wandb.yaml has it
RECORD = "record.json"  # a file of each run


def has_wandb_key() -> bool:
    """Whether W&B will find a key in one of its own places; the key itself is not read."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    names = [os.environ["NETRC"]] if os.environ.get("NETRC") else ["~/.netrc", "~/_netrc"]
    file = next((path for name in names if (path := Path(name).expanduser()).is_file()), None)
    if file is None:
        return False
    try:
        keys = netrc.netrc(file)
    except (OSError, ValueError, netrc.NetrcParseError):
        return False
    return any(found[2] for host in _wandb_hosts() if (found := keys.authenticators(host)))


def _wandb_hosts() -> list[str]:
    """The names that W&B looks for in netrc, with their ports: its server's, and the older one."""
    import wandb  # half a second: only where there is a netrc file to look into

    folder = Path(os.environ.get("WANDB_CONFIG_DIR", "~/.config/wandb")).expanduser()
    settings = wandb.Settings(silent=True, settings_system=str(folder / "settings"))
    default = settings.base_url
    settings.update_from_system_settings()  # where `wandb login --host` keeps it
    try:
        settings.base_url = os.environ.get("WANDB_BASE_URL", settings.base_url)
    except ValueError:  # no address; W&B will say so itself
        return []
    older = ["api.wandb.ai"] if settings.base_url == default else []
    return [urlsplit(settings.base_url).netloc, *older]
