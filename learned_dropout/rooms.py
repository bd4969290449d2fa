"""The rooms `common`, `ops` and `dropout` of the repository, loaded as parts of this package.

Their modules import one another by those names, which elsewhere may be anyone's. So each is compiled
with its imports turned to this package: what is `dropout.learned` in the repository is here
`learned_dropout.dropout.learned`, from the same file, and no name but `learned_dropout` is taken.
"""

import ast
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType

PACKAGE = __package__ or "learned_dropout"
ROOMS = ("common", "ops", "dropout")

_HERE = Path(__file__).resolve().parent
# Inside this package where it was installed as a wheel, beside it in the repository.
_ROOT = _HERE if (_HERE / "dropout").is_dir() else _HERE.parent


def install() -> None:
    """Let Python find the rooms below this package; again, it changes nothing."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        package, *parts = fullname.split(".")
        if package != PACKAGE or not parts or parts[0] not in ROOMS:
            return None
        place = _ROOT.joinpath(*parts)
        folders = [str(place)] if place.is_dir() else None
        file = place / "__init__.py" if folders else place.with_suffix(".py")
        if not file.is_file():
            return None
        loader = _Loader(fullname, str(file))
        return spec_from_file_location(
            fullname, file, loader=loader, submodule_search_locations=folders
        )


class _Loader(SourceFileLoader):
    def get_code(self, fullname: str) -> CodeType:
        """Compiled anew each time: the cached bytecode beside the file is of its plain name."""
        tree = ast.parse(self.get_data(self.path), self.path)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and not node.level and _is_ours(node.module):
                node.module = f"{PACKAGE}.{node.module}"
            elif isinstance(node, ast.Import) and any(_is_ours(name.name) for name in node.names):
                raise ImportError(f"{self.path}:{node.lineno}: write it as from ... import ...")
        return compile(tree, self.path, "exec", dont_inherit=True)


def _is_ours(module: str | None) -> bool:
    return (module or "").partition(".")[0] in ROOMS
