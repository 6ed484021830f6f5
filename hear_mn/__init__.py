"""EfficientAT's MobileNets as audio embedding models with the HEAR API.

`import hear_mn.<variant>` works for every variant, for example `hear_mn.mn40_as_ext_e1_l_all_se`,
and for the aliases in `variants.csv`. The module has what the HEAR tools look for: `load_model`,
`get_scene_embeddings` and `get_timestamp_embeddings`.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType


class VariantImporter(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Makes the module of a variant when it is imported.

    It stands behind Python's own importers, so that it never hides a file of this package.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of `hear_mn.<variant>`; an unknown variant raises ModuleNotFoundError."""
        package, _, name = fullname.rpartition(".")
        if package != __name__ or name.startswith("__"):
            return None
        from hear_mn.variants import UnknownVariant, parse_variant  # noqa: PLC0415

        try:
            parse_variant(name)
        except UnknownVariant as error:
            raise ModuleNotFoundError(f"No module {fullname}: {error}", name=fullname) from None
        return importlib.util.spec_from_loader(fullname, self)

    def exec_module(self, module: ModuleType) -> None:
        """Give the module the HEAR API."""
        from hear_mn import hear_api  # noqa: PLC0415
        from hear_mn.variants import parse_variant  # noqa: PLC0415

        hear_api.fill_module(module, parse_variant(module.__name__.rpartition(".")[2]))


if not any(type(finder).__name__ == VariantImporter.__name__ for finder in sys.meta_path):
    sys.meta_path.append(VariantImporter())
