# Decides whether this build has the CUDA backend: P4_HAVE_CUDA. It needs kernels/cuda/, nvcc and the headers of NCCL.
#
# One program serves machines with and without a GPU: it must start where NVIDIA's driver and libraries are not. So the
# CUDA code is linked in like any other, and of NVIDIA's libraries only the runtime, as a static library (1 MB, which looks
# for the driver itself when it is first called). The large ones (cuBLASLt, NCCL) are never linked: files named *import*
# define the functions that are called and load the library at the first call (src/leaf/import.h), as the CPU column does with
# OpenBLAS. A module of our own, loaded on demand, would keep the same libraries away, but it is one more file that a moved
# or statically linked installation must find, with a second copy of the leaf and its error texts.
file(GLOB P4_CUDA_SOURCES CONFIGURE_DEPENDS kernels/cuda/*.cu)
file(GLOB P4_SM90_SOURCES CONFIGURE_DEPENDS kernels/sm90/*.cu) # instructions of compute capability 9.0 only
set(P4_HAVE_CUDA OFF)
set(P4_CUDA_LACKS "")
if(P4_CUDA STREQUAL "OFF")
  set(P4_CUDA_LACKS "turned off")
elseif(P4_FUZZ OR P4_SANITIZE)
  set(P4_CUDA_LACKS "not with sanitizers")
elseif(NOT P4_CUDA_SOURCES)
  set(P4_CUDA_LACKS "no kernels/cuda/*.cu")
else()
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    find_package(CUDAToolkit QUIET)
  endif()
  find_path(NCCL_INCLUDE_DIR nccl.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
  find_path(CUBLASLT_INCLUDE_DIR cublasLt.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
  find_library(NCCL_LIBRARY NAMES nccl libnccl.so.2 HINTS ${CUDAToolkit_LIBRARY_DIR})
  mark_as_advanced(NCCL_INCLUDE_DIR CUBLASLT_INCLUDE_DIR NCCL_LIBRARY)
  if(NOT CMAKE_CUDA_COMPILER)
    set(P4_CUDA_LACKS "no nvcc")
  elseif(NOT TARGET CUDA::cudart_static)
    set(P4_CUDA_LACKS "no libcudart_static.a")
  elseif(NOT CUBLASLT_INCLUDE_DIR)
    set(P4_CUDA_LACKS "no cublasLt.h")
  elseif(NOT NCCL_INCLUDE_DIR)
    set(P4_CUDA_LACKS "no nccl.h")
  else()
    set(P4_HAVE_CUDA ON)
  endif()
endif()

if(P4_HAVE_CUDA)
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES 80 90)
  endif()
  enable_language(CUDA)
  set(CMAKE_CUDA_VISIBILITY_PRESET hidden)
  set(CMAKE_CUDA_RUNTIME_LIBRARY None) # linked by name
  # Where libraries that are loaded on demand lay when this was built; the system's own search comes first.
  set(P4_NCCL_FOLDER ${CUDAToolkit_LIBRARY_DIR})
  if(NCCL_LIBRARY)
    get_filename_component(P4_NCCL_FOLDER ${NCCL_LIBRARY} DIRECTORY)
  endif()
  message(STATUS "CUDA backend: on, architectures ${CMAKE_CUDA_ARCHITECTURES}")
elseif(P4_CUDA STREQUAL "AUTO" OR P4_CUDA STREQUAL "OFF")
  message(STATUS "CUDA backend: off (${P4_CUDA_LACKS})")
else()
  message(FATAL_ERROR "P4_CUDA=${P4_CUDA}, but the CUDA backend cannot be built: ${P4_CUDA_LACKS}")
endif()
