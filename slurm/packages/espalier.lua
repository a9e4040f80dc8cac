-- Lmod module of Espalier: put it into MODULEPATH as espalier/0.1.0.lua. A template: fill in what is marked FILL IN.
-- Loaded with Lmod 8.6 and stand-ins for the other modules where it was written; NOT USED on a cluster.
help([[Prunes LLaMA-family language models in one shot, block by block, over MPI.
  espalier --help
  srun --mpi=pmix --gpus-per-node=8 --ntasks-per-node=8 espalier prune --model DIR --calibration tokens.h5 --output RUN]])
whatis("Name: Espalier")
whatis("Version: 0.1.0")
whatis("Category: machine learning")
whatis("License: Apache-2.0")

local root = "/FILL/IN/espalier/0.1.0"   -- FILL IN: what `cmake --install BUILD --prefix` was given; jobs and slurm copied there

conflict("espalier")
-- FILL IN: the modules it was built with, the same versions (`module list` when you built it)
depends_on("openmpi")
depends_on("hdf5")
depends_on("cuda")
depends_on("nccl")

prepend_path("PATH", pathJoin(root, "bin"))
setenv("ESPALIER", pathJoin(root, "bin/espalier"))              -- slurm/submit.sh starts this one
setenv("ESPALIER_SLURM", pathJoin(root, "slurm"))               -- for `sbatch $ESPALIER_SLURM/prune.sbatch ...`
-- FILL IN if `srun --mpi=list` names another one than pmix
setenv("ESPALIER_SRUN_OPTIONS", "--mpi=pmix")
