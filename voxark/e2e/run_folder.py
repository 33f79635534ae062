"""The folder of an end-to-end training: that of any training, with the back-end for programs without torch."""

import copy
import os

from voxark import tables
from voxark.e2e.model import E2eModel
from voxark.nnet.run_folder import RunFolder


class E2eRunFolder(RunFolder):
    """The files of one run in ``path``; ``writes`` is true for the one process that writes them."""

    def __init__(self, path, writes=True):
        super().__init__(path, E2eModel, writes)

    def _write_more(self, model, parameters):
        """Write the back-end for programs without torch: dplda, of vectors that front.mat takes there."""
        scorer = copy.deepcopy(model.scorer)
        scorer.load_state_dict({name.removeprefix("scorer."): value for name, value in parameters.items()
                                if name.startswith("scorer.")})
        exported = scorer.to_dplda()
        tables.write_object("dplda", self.file("dplda"), exported.dplda.to_params())
        if exported.transform is not None:
            tables.write_object("mat", self.file("front.mat"), exported.transform.astype("float32"))
        elif os.path.exists(self.file("front.mat")):
            os.unlink(self.file("front.mat"))
