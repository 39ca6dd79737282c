# What phase4 is built on. Each is found or the configuration stops with a line that names it.
include(GNUInstallDirs)
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
find_package(OpenMP REQUIRED COMPONENTS C)
find_package(MPI REQUIRED COMPONENTS C)
find_package(ZLIB REQUIRED)
find_package(HDF5 REQUIRED COMPONENTS C) # without HDF5_PREFER_PARALLEL: the serial build where there are both
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8)
pkg_check_modules(ZSTD REQUIRED IMPORTED_TARGET libzstd)
pkg_check_modules(ARCHIVE REQUIRED IMPORTED_TARGET libarchive)
pkg_check_modules(UTF8PROC REQUIRED IMPORTED_TARGET libutf8proc)
pkg_check_modules(CJSON REQUIRED IMPORTED_TARGET libcjson)
# OpenBLAS is loaded when the program runs (kernels/cpu/device.c), so that its settings can be made first: nothing links it.
find_library(P4_OPENBLAS NAMES libopenblas.so.0)
mark_as_advanced(P4_OPENBLAS)
if(NOT P4_OPENBLAS)
  message(WARNING "libopenblas.so.0 (Debian: libopenblas0-pthread) is not here; phase4 needs it to run on CPUs")
endif()
