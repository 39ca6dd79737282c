# One static library a room, mirroring the direction rule of CONTRIBUTING.md: a room links only what it may use. A file
# belongs to a room by lying in its folder. Includes name files by their path from the root; tests/direction.sh checks them.
file(GLOB P4_LEAF_SOURCES CONFIGURE_DEPENDS src/leaf/*.c)
file(GLOB P4_CORE_SOURCES CONFIGURE_DEPENDS src/*.c src/decode/*.c)
file(GLOB P4_KERNEL_SOURCES CONFIGURE_DEPENDS kernels/*.c kernels/cpu/*.c)
file(GLOB P4_DIST_SOURCES CONFIGURE_DEPENDS dist/*.c)
file(GLOB P4_IO_SOURCES CONFIGURE_DEPENDS io/*/*.c)
file(GLOB P4_JOB_SOURCES CONFIGURE_DEPENDS jobs/*.c jobs/train/*.c jobs/stages/*.c jobs/api/*.c jobs/batch/*.c)
file(GLOB P4_PROGRAM_SOURCES CONFIGURE_DEPENDS jobs/phase4_*.c)
list(REMOVE_ITEM P4_JOB_SOURCES ${P4_PROGRAM_SOURCES})
if(P4_HAVE_CUDA)
  list(APPEND P4_KERNEL_SOURCES ${P4_CUDA_SOURCES})
  list(APPEND P4_DIST_SOURCES dist/peer_add.cu)
  # The two backend lists: the only files that see P4_CUDA.
  set_source_files_properties(kernels/ops.c dist/coll.c PROPERTIES COMPILE_DEFINITIONS P4_CUDA)
  set_source_files_properties(kernels/cuda/blas_import.cu PROPERTIES COMPILE_DEFINITIONS
                              P4_LIBRARY_FOLDER="${CUDAToolkit_LIBRARY_DIR}")
  set_source_files_properties(dist/nccl_import.c PROPERTIES COMPILE_DEFINITIONS P4_LIBRARY_FOLDER="${P4_NCCL_FOLDER}")
  set(P4_CUDA_RUNTIME CUDA::cudart_static stdc++) # cub throws
else()
  list(FILTER P4_DIST_SOURCES EXCLUDE REGEX "nccl[^/]*$")
  set(P4_CUDA_RUNTIME "")
endif()

set(P4_ROOM_OBJECTS "")
set(P4_EXTERNAL_LIBRARIES "")

# p4_room(NAME SOURCES ... ROOMS rooms that it may use... EXTERNAL libraries of its own...)
function(p4_room name)
  cmake_parse_arguments(ARG "" "" "SOURCES;ROOMS;EXTERNAL" ${ARGN})
  add_library(${name} STATIC ${ARG_SOURCES})
  target_include_directories(${name} PUBLIC ${CMAKE_SOURCE_DIR})
  target_link_libraries(${name} PRIVATE p4_flags ${ARG_EXTERNAL} PUBLIC ${ARG_ROOMS})
  set(P4_ROOM_OBJECTS ${P4_ROOM_OBJECTS} $<TARGET_OBJECTS:${name}> PARENT_SCOPE)
  set(P4_EXTERNAL_LIBRARIES ${P4_EXTERNAL_LIBRARIES} ${ARG_EXTERNAL} PARENT_SCOPE)
endfunction()

p4_room(p4_leaf SOURCES ${P4_LEAF_SOURCES} EXTERNAL m Threads::Threads ${CMAKE_DL_LIBS})
p4_room(p4_kernels SOURCES ${P4_KERNEL_SOURCES} ROOMS p4_leaf
        EXTERNAL OpenMP::OpenMP_C Threads::Threads ${CMAKE_DL_LIBS} ${P4_CUDA_RUNTIME})
if(P4_HAVE_CUDA) # for sm_90a alone, whatever the other files are built for: beside an sm_90 form the driver may take that
  add_library(p4_kernels_sm90 OBJECT ${P4_SM90_SOURCES})
  set_target_properties(p4_kernels_sm90 PROPERTIES CUDA_ARCHITECTURES 90a)
  target_include_directories(p4_kernels_sm90 PRIVATE ${CMAKE_SOURCE_DIR})
  target_link_libraries(p4_kernels_sm90 PRIVATE p4_flags)
  target_sources(p4_kernels PRIVATE $<TARGET_OBJECTS:p4_kernels_sm90>)
  list(APPEND P4_ROOM_OBJECTS $<TARGET_OBJECTS:p4_kernels_sm90>)
endif()
p4_room(p4_core SOURCES ${P4_CORE_SOURCES} ROOMS p4_leaf p4_kernels EXTERNAL m Threads::Threads)
p4_room(p4_group SOURCES ${P4_DIST_SOURCES} ROOMS p4_leaf
        EXTERNAL MPI::MPI_C Threads::Threads ${P4_CUDA_RUNTIME})
if(P4_HAVE_CUDA)
  target_include_directories(p4_group SYSTEM PRIVATE ${NCCL_INCLUDE_DIR})
endif()
# Messages of other programs, generated from their definitions: SentencePiece models are read, runs of Weights & Biases and
# TensorBoard's events are written.
set(P4_PROTO_FOLDER ${CMAKE_BINARY_DIR}/generated)
file(MAKE_DIRECTORY ${P4_PROTO_FOLDER})
set(P4_PROTO_SOURCES "")
foreach(proto io/tokenizer/sentencepiece io/metrics/wandb io/metrics/tensorboard)
  get_filename_component(name ${proto} NAME)
  get_filename_component(folder ${proto} DIRECTORY)
  add_custom_command(OUTPUT ${P4_PROTO_FOLDER}/${name}.pb-c.c ${P4_PROTO_FOLDER}/${name}.pb-c.h
                     COMMAND ${P4_PROTOC_C} --proto_path=${CMAKE_SOURCE_DIR}/${folder} --c_out=${P4_PROTO_FOLDER} ${name}.proto
                     DEPENDS ${CMAKE_SOURCE_DIR}/${proto}.proto VERBATIM)
  set_source_files_properties(${P4_PROTO_FOLDER}/${name}.pb-c.c PROPERTIES COMPILE_OPTIONS "-w")
  list(APPEND P4_PROTO_SOURCES ${P4_PROTO_FOLDER}/${name}.pb-c.c)
endforeach()

p4_room(p4_io SOURCES ${P4_IO_SOURCES} ${P4_PROTO_SOURCES} ROOMS p4_leaf p4_core p4_group
        EXTERNAL PkgConfig::CJSON PkgConfig::PROTOBUF_C PkgConfig::PCRE2 PkgConfig::ZSTD PkgConfig::ARCHIVE PkgConfig::UTF8PROC
        ZLIB::ZLIB hdf5::hdf5 Threads::Threads)
target_include_directories(p4_io SYSTEM PRIVATE ${P4_PROTO_FOLDER})
p4_room(p4_jobs SOURCES ${P4_JOB_SOURCES} ROOMS p4_core p4_kernels p4_group p4_io EXTERNAL m)
# Speed where the arithmetic is, and no fast-math: no errno from sqrtf and friends; comparisons may be vectorised because no
# floating-point trap is ever looked at (5x for the quantizers, 1.4 to 1.8x for the losses and GELU); a*b+c may be one operation.
target_compile_options(p4_kernels PRIVATE
                       $<$<COMPILE_LANGUAGE:C>:-fno-math-errno -fno-trapping-math -ffp-contract=fast>)

# Where a comment promises that each step is rounded.
set_source_files_properties(kernels/cpu/linear_direct.c PROPERTIES COMPILE_OPTIONS -ffp-contract=off)

# libphase4: the same objects once more, as the library that is installed. The shared one exports what phase4.h marks
# P4_PUBLIC and nothing else.
add_library(phase4 SHARED ${P4_ROOM_OBJECTS})
add_library(phase4_static STATIC ${P4_ROOM_OBJECTS})
set_target_properties(phase4 PROPERTIES VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR})
set_target_properties(phase4_static PROPERTIES OUTPUT_NAME phase4)
foreach(library phase4 phase4_static)
  set_target_properties(${library} PROPERTIES LINKER_LANGUAGE C)
  target_include_directories(${library} INTERFACE $<BUILD_INTERFACE:${CMAKE_SOURCE_DIR}/src>
                             $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
  target_link_libraries(${library} PRIVATE ${P4_EXTERNAL_LIBRARIES})
endforeach()
if(NOT P4_SANITIZE AND NOT P4_FUZZ) # the sanitizers' symbols come from the program
  target_link_options(phase4 PRIVATE -Wl,--no-undefined -Wl,--exclude-libs,libcudart_static.a)
endif()

# The demo's own data: stories and their tokenizer.
file(GLOB P4_DEMO_SOURCES CONFIGURE_DEPENDS jobs/demo/*.c)
list(REMOVE_ITEM P4_DEMO_SOURCES ${CMAKE_SOURCE_DIR}/jobs/demo/make_demo.c)
add_library(p4_demo STATIC ${P4_DEMO_SOURCES})
target_link_libraries(p4_demo PRIVATE p4_flags PkgConfig::PCRE2 PUBLIC p4_leaf)
add_executable(phase4_demo jobs/demo/make_demo.c)
target_link_libraries(phase4_demo PRIVATE p4_flags p4_demo)

# Each jobs/phase4_NAME.c is a program.
set(P4_PROGRAM_NAMES "")
foreach(source ${P4_PROGRAM_SOURCES})
  get_filename_component(program ${source} NAME_WE)
  list(APPEND P4_PROGRAM_NAMES ${program})
  add_executable(${program} ${source} $<$<BOOL:${P4_SANITIZE}>:tests/keep_modules.c>)
  target_link_libraries(${program} PRIVATE p4_flags p4_jobs)
  set_target_properties(${program} PROPERTIES LINKER_LANGUAGE C) # else CMake takes nvcc's
endforeach()
