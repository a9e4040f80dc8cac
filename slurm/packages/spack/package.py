# Spack recipe of Espalier, for Spack 1.0 and later. NOT BUILT HERE: no Spack on the machine where it was written; its syntax
# and the CMake arguments it makes were checked, names and variants compared with the recipes of spack-packages.
#
# FILL IN: the address of the source (`git`), unless you build a checkout with `spack develop` or `spack dev-build`.

from spack_repo.builtin.build_systems.cmake import CMakePackage, generator
from spack_repo.builtin.build_systems.cuda import CudaPackage

from spack.package import *


class Espalier(CMakePackage, CudaPackage):
    """Prunes LLaMA-family language models in one shot, block by block, over MPI, on NVIDIA GPUs and CPUs."""

    homepage = "https://example.org/espalier"  # FILL IN
    git = "https://example.org/espalier.git"  # FILL IN

    license("Apache-2.0")

    version("main", branch="main")

    # +cuda and cuda_arch come from CudaPackage.
    variant("tests", default=False, description="Build the tests (GoogleTest) and benchmarks")
    variant(
        "cpu_architecture",
        default="target",
        description="-march of the CPU kernels: target is what Spack compiles for, or e.g. x86-64-v3, x86-64, native",
        values=("target", "x86-64", "x86-64-v2", "x86-64-v3", "x86-64-v4", "native"),
        multi=False,
    )

    depends_on("c", type="build")
    depends_on("cxx", type="build")
    depends_on("cmake@3.25:", type="build")
    depends_on("pkgconfig", type="build")

    # Only Open MPI is tested. Ranks that `srun --mpi=pmix` starts talk to the cluster's PMIx: README.md beside this folder.
    depends_on("openmpi@4.1:")
    depends_on("hdf5@1.10:~mpi")
    depends_on("boost@1.74:+program_options")
    depends_on("openblas threads=pthreads")
    depends_on("nlohmann-json@3.10:")
    depends_on("fmt@9:")
    depends_on("xxhash@0.8:")
    depends_on("openssl@3:")
    depends_on("googletest", when="+tests")

    with when("+cuda"):
        depends_on("cuda@12:13")
        depends_on("nccl")
        conflicts("cuda_arch=none", msg="say which GPUs: cuda_arch=80 (A100), cuda_arch=90 (H100, H200)")
    for arch in CudaPackage.cuda_arch_values:
        depends_on(f"nccl cuda_arch={arch}", when=f"+cuda cuda_arch={arch}")

    conflicts("%gcc@:11", msg="C++20 needs GCC 12 or later")

    generator("ninja")

    def cmake_args(self):
        args = [
            self.define("ESPALIER_CUDA", "ON" if self.spec.satisfies("+cuda") else "OFF"),
            self.define_from_variant("ESPALIER_TESTS", "tests"),
        ]
        architecture = self.spec.variants["cpu_architecture"].value
        # Spack's compiler wrapper adds -march for its target; an empty value leaves that alone.
        args.append(self.define("ESPALIER_CPU_ARCHITECTURE", "" if architecture == "target" else architecture))
        if self.spec.satisfies("+cuda"):
            args.append(self.define("CMAKE_CUDA_ARCHITECTURES", self.spec.variants["cuda_arch"].value))
        return args

    @run_after("install")
    def install_scripts(self):
        # slurm/sweep.sh looks for ../jobs beside it.
        install_tree("slurm", self.prefix.slurm)
        install_tree("jobs", self.prefix.jobs)

    def setup_run_environment(self, env):
        env.set("ESPALIER", self.prefix.bin.espalier)

    @run_after("install")
    @on_package_attributes(run_tests=True)
    def sanity_check(self):
        Executable(self.prefix.bin.espalier)("doctor")  # needs no GPU
