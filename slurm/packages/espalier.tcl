#%Module4.7
# Environment Modules' file of Espalier: put it into MODULEPATH as espalier/0.1.0. A template: fill in what is marked FILL IN.
# Loaded with Environment Modules 5.2 and stand-ins for the other modules where it was written; NOT USED on a cluster.
proc ModulesHelp {} {
    puts stderr "Prunes LLaMA-family language models in one shot, block by block, over MPI: espalier --help
  srun --mpi=pmix --gpus-per-node=8 --ntasks-per-node=8 espalier prune --model DIR --calibration tokens.h5 --output RUN"
}
module-whatis "Espalier 0.1.0: one-shot pruning of LLaMA-family models over MPI (Apache-2.0)"

set root /FILL/IN/espalier/0.1.0 ;# FILL IN: what `cmake --install BUILD --prefix` was given; jobs and slurm copied there

conflict espalier
# FILL IN: the modules it was built with, the same versions (`module list` when you built it).
# `module load` inside a module file loads what is missing, with automated handling since 4.2; prereq only asks for it.
module load openmpi hdf5 cuda nccl

prepend-path PATH $root/bin
setenv ESPALIER $root/bin/espalier ;# slurm/submit.sh starts this one
setenv ESPALIER_SLURM $root/slurm ;# for `sbatch $ESPALIER_SLURM/prune.sbatch ...`
# FILL IN if `srun --mpi=list` names another one than pmix
setenv ESPALIER_SRUN_OPTIONS --mpi=pmix
