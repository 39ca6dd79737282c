import os

from spack_repo.builtin.build_systems.cmake import CMakePackage, generator
from spack_repo.builtin.build_systems.cuda import CudaPackage

from spack.package import *


class Phase4(CMakePackage, CudaPackage):
    """Compresses transformer language models to ternary weights, on CPUs and NVIDIA GPUs,
    with MPI."""

    # The archive is made from a checkout:
    #   git archive --prefix=phase4-1.0.0/ -o phase4-1.0.0.tar.gz HEAD
    # `spack install --no-checksum phase4` takes it from the working directory.
    manual_download = True
    url = f"file://{os.getcwd()}/phase4-1.0.0.tar.gz"

    license("Apache-2.0")

    version("1.0.0")

    variant("cuda", default=False, description="Build the CUDA kernels")
    variant("cudnn", default=True, when="+cuda", description="Attention by cuDNN where it serves")
    variant("tests", default=False, description="Build the tests")

    depends_on("c", type="build")
    depends_on("cxx", type="build", when="+cuda")
    depends_on("cmake@3.25:", type="build")
    depends_on("ninja", type="build")
    depends_on("pkgconfig", type="build")
    depends_on("mpi")
    depends_on("hdf5@1.10.5:~mpi")
    depends_on("cjson")
    depends_on("pcre2")
    depends_on("zlib-api")
    depends_on("zstd")
    depends_on("libarchive")
    depends_on("utf8proc+shared")
    depends_on("protobuf-c")
    depends_on("cuda@12:", when="+cuda")
    for arch in CudaPackage.cuda_arch_values:
        depends_on(f"nccl cuda_arch={arch}", when=f"+cuda cuda_arch={arch}")
    # These are loaded when they are first used, as are CUDA's libraries and NCCL. Of type link,
    # they are in the RPATH of the programs.
    depends_on("openblas threads=pthreads", type=("build", "link", "run"))
    depends_on("cudnn@9.16:", type=("link", "run"), when="+cudnn")

    conflicts("cuda_arch=none", when="+cuda", msg="name the GPUs: cuda_arch=90 for H100 and H200")

    generator("ninja")

    def cmake_args(self):
        args = [
            self.define_from_variant("P4_CUDA", "cuda"),
            self.define_from_variant("P4_TESTS", "tests"),
        ]
        if self.spec.satisfies("+cuda"):
            args.append(
                self.define("CMAKE_CUDA_ARCHITECTURES", self.spec.variants["cuda_arch"].value)
            )
        return args
