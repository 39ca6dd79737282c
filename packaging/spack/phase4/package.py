from spack_repo.builtin.build_systems.cmake import CMakePackage
from spack_repo.builtin.build_systems.cuda import CudaPackage

from spack.package import *

import os


class Phase4(CMakePackage, CudaPackage):
    """Compresses transformer language models to ternary weights, on CPUs and NVIDIA GPUs, with MPI."""

    # The archive is made from a checkout: git archive --prefix=phase4-1.0.0/ -o phase4-1.0.0.tar.gz HEAD
    # `spack install --no-checksum phase4` takes it from the working directory.
    manual_download = True
    url = "file://{0}/phase4-1.0.0.tar.gz".format(os.getcwd())

    license("Apache-2.0")

    version("1.0.0")

    variant("cuda", default=False, description="Build the CUDA kernels")
    variant("tests", default=False, description="Build the tests")

    depends_on("c", type="build")
    depends_on("cxx", type="build", when="+cuda")
    depends_on("cmake@3.25:", type="build")
    depends_on("ninja", type="build")
    depends_on("pkgconfig", type="build")
    depends_on("mpi")
    depends_on("hdf5@1.10:~mpi")
    depends_on("cjson")
    depends_on("openblas threads=pthreads", type="run")
    depends_on("pcre2")
    depends_on("zlib-api")
    depends_on("zstd")
    depends_on("libarchive")
    depends_on("utf8proc+shared")
    depends_on("protobuf-c")
    depends_on("cuda@12:", when="+cuda")
    depends_on("nccl", when="+cuda")

    conflicts("cuda_arch=none", when="+cuda", msg="name the GPUs: cuda_arch=90 for H100 and H200")

    generator("ninja")

    def cmake_args(self):
        args = [
            self.define("P4_CUDA", "ON" if self.spec.satisfies("+cuda") else "OFF"),
            self.define_from_variant("P4_TESTS", "tests"),
        ]
        if self.spec.satisfies("+cuda"):
            args.append(self.define("CMAKE_CUDA_ARCHITECTURES", ";".join(self.spec.variants["cuda_arch"].value)))
        return args

    def setup_run_environment(self, env: EnvironmentModifications) -> None:
        # OpenBLAS, cuBLASLt, cuDNN and NCCL are loaded when they are first used.
        env.prepend_path("LD_LIBRARY_PATH", self.spec["openblas"].prefix.lib)
        if self.spec.satisfies("+cuda"):
            env.prepend_path("LD_LIBRARY_PATH", self.spec["cuda"].prefix.lib64)
            env.prepend_path("LD_LIBRARY_PATH", self.spec["nccl"].prefix.lib)
