"""The class of each image of a source, by the folders above it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from btkeras.datasets.classes import CLASSES, TUMOR, find_class, not_classes
from btkeras.datasets.dataset import find_subset
from btkeras.datasets.readers.archives import SourceFile
from btkeras.errors import DataError


@dataclass(frozen=True)
class FolderClasses:
    """How a source's folders name classes: ``above`` are folders above the source that count, ``own`` further names."""

    above: Sequence[str]
    own: frozenset[str]

    def folders(self, file: SourceFile) -> list[str]:
        """The folders above a file. A zip counts as one only if its name says something (``Training.zip``)."""
        names = list(self.above)
        for folder in PurePosixPath(file.path).parts[:-1]:
            name = folder[:-4] if folder.lower().endswith(".zip") else folder
            if name == folder or find_subset(name) or self._find(name):
                names.append(name)
        return names

    def labels(self, images: Sequence[SourceFile], folders: Sequence[Sequence[str]], said: Sequence[str]) -> list[str]:
        """The classes of images.

        Args:
            images: The files.
            folders: Of each, the ``folders`` above it.
            said: Of each, the class that its name says, or "", for images in no class folder.

        Raises:
            DataError: If an image lies in no class folder, or in several that do not go together.
        """
        classes = [[folder for folder in above if not find_subset(folder)] for above in folders]
        # A download often has all its class folders in one more folder, or several.
        while classes and all(len(above) > 1 for above in classes) and len({above[0] for above in classes}) == 1:
            inner = [above[1:] for above in classes]
            # A collection may be called brain_tumor as a whole.
            whole = self._find(classes[0][0]) == TUMOR and any(self._find(each) for above in inner for each in above)
            if self._find(classes[0][0]) and not whole:
                break
            classes = inner
        rows = list(zip(images, classes, said, strict=True))
        tops = {above[0]: file for file, above, name in reversed(rows) if above and not name}
        if unknown := sorted(name for name in tops if not self._find(name)):
            raise not_classes(unknown, f", where {tops[unknown[0]].name} lies", self.own)
        return [self._label(*row) for row in rows]

    def _find(self, folder: str) -> str | None:
        return find_class(folder, self.own)

    def _label(self, file: SourceFile, folders: Sequence[str], said: str) -> str:
        found = list(filter(None, map(self._find, folders)))
        if said:
            return next(iter(found), said)
        if not folders:
            rule = f"Each image must lie in a folder named after its class ({', '.join((*CLASSES, *sorted(self.own)))})"
            raise DataError(rule, received=file.name, remedy="Move it into such a folder, or remove it")
        # Kinds of tumours may lie in one folder for all.
        labels = set(found) - ({TUMOR} if len(set(found)) > 1 else set())
        if len(labels) > 1:
            raise DataError("Class folders must not lie in each other", received=file.name, remedy="Move the inner one")
        return labels.pop()
