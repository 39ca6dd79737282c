# One object library a room, mirroring the direction rule of CONTRIBUTING.md: a room links only what it may use.
# A file belongs to a room by lying in its folder.
file(GLOB P4_LEAF_SOURCES CONFIGURE_DEPENDS src/base.c src/tensor.c src/arena.c src/rng.c src/progress.c)
file(GLOB P4_CORE_SOURCES CONFIGURE_DEPENDS src/*.c)
list(REMOVE_ITEM P4_CORE_SOURCES ${P4_LEAF_SOURCES})
file(GLOB P4_KERNEL_SOURCES CONFIGURE_DEPENDS kernels/*.c)
file(GLOB P4_DIST_SOURCES CONFIGURE_DEPENDS dist/*.c)
file(GLOB P4_IO_SOURCES CONFIGURE_DEPENDS io/*.c)
file(GLOB P4_JOB_SOURCES CONFIGURE_DEPENDS jobs/*.c)
list(REMOVE_ITEM P4_JOB_SOURCES ${CMAKE_SOURCE_DIR}/jobs/phase4_mpi.c)

function(p4_room name)
  cmake_parse_arguments(ARG "" "" "SOURCES;INCLUDES;LINKS" ${ARGN})
  add_library(${name} STATIC ${ARG_SOURCES})
  target_include_directories(${name} PUBLIC ${ARG_INCLUDES})
  target_link_libraries(${name} PRIVATE p4_flags PUBLIC ${ARG_LINKS})
endfunction()

p4_room(p4_leaf SOURCES ${P4_LEAF_SOURCES} INCLUDES src LINKS m)
p4_room(p4_kernels SOURCES ${P4_KERNEL_SOURCES} INCLUDES kernels LINKS p4_leaf OpenMP::OpenMP_C Threads::Threads
        ${CMAKE_DL_LIBS})
p4_room(p4_core SOURCES ${P4_CORE_SOURCES} INCLUDES src LINKS p4_leaf p4_kernels)
p4_room(p4_dist SOURCES ${P4_DIST_SOURCES} INCLUDES dist LINKS p4_leaf MPI::MPI_C)
p4_room(p4_io SOURCES ${P4_IO_SOURCES} INCLUDES io LINKS p4_leaf p4_core p4_dist PkgConfig::CJSON PkgConfig::PCRE2
        PkgConfig::ZSTD PkgConfig::UTF8PROC ZLIB::ZLIB hdf5::hdf5 Threads::Threads)
p4_room(p4_jobs SOURCES ${P4_JOB_SOURCES} INCLUDES jobs LINKS p4_core p4_kernels p4_dist p4_io)
