# What `cmake --install` lays down: header, both libraries, programs, pkg-config file, CMake package, examples, the demo, the
# guides and the manual pages.
include(CMakePackageConfigHelpers)
set(P4_PACKAGE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/phase4)
set(P4_SHARE_DIR ${CMAKE_INSTALL_DATADIR}/phase4)

install(FILES src/phase4.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(DIRECTORY src/phase4 DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
# Two export sets: a user of the shared library needs none of the development packages beneath the static one.
install(TARGETS phase4 EXPORT phase4-shared)
install(TARGETS phase4_static EXPORT phase4-static)
foreach(kind shared static)
  install(EXPORT phase4-${kind} NAMESPACE phase4:: DESTINATION ${P4_PACKAGE_DIR})
endforeach()
configure_package_config_file(cmake/phase4-config.cmake.in ${CMAKE_BINARY_DIR}/phase4-config.cmake
                              INSTALL_DESTINATION ${P4_PACKAGE_DIR})
write_basic_package_version_file(${CMAKE_BINARY_DIR}/phase4-config-version.cmake COMPATIBILITY SameMajorVersion)
install(FILES ${CMAKE_BINARY_DIR}/phase4-config.cmake ${CMAKE_BINARY_DIR}/phase4-config-version.cmake
        DESTINATION ${P4_PACKAGE_DIR})

# pkg-config: what the static library needs beneath it. Not as Requires.private: those libraries are shared and find what
# they are built on themselves, while --static would ask for the development files of all that too.
set(P4_PC_LIBS ${MPI_C_LIBRARIES} ${HDF5_C_LIBRARIES})
if(P4_HAVE_CUDA)
  list(APPEND P4_PC_LIBS ${CUDA_cudart_static_LIBRARY} -lrt -lstdc++)
endif()
list(FILTER P4_PC_LIBS EXCLUDE REGEX "/lib(m|dl|pthread|z)\\.(a|so)$")
foreach(library PCRE2 ZSTD ARCHIVE UTF8PROC PROTOBUF_C CJSON)
  list(APPEND P4_PC_LIBS ${${library}_LDFLAGS})
endforeach()
list(APPEND P4_PC_LIBS -lz ${OpenMP_C_FLAGS} -lpthread -ldl -lm)
list(REMOVE_DUPLICATES P4_PC_LIBS)
list(JOIN P4_PC_LIBS " " P4_PC_LIBS)
set(P4_PC_PREFIX ${CMAKE_INSTALL_PREFIX})
if(NOT IS_ABSOLUTE "${CMAKE_INSTALL_LIBDIR}") # relative to the file itself: the folder may be moved
  file(RELATIVE_PATH P4_PC_PREFIX /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
  string(REGEX REPLACE "/$" "" P4_PC_PREFIX "\${pcfiledir}/${P4_PC_PREFIX}")
endif()
configure_file(cmake/phase4.pc.in ${CMAKE_BINARY_DIR}/phase4.pc @ONLY)
install(FILES ${CMAKE_BINARY_DIR}/phase4.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

install(TARGETS ${P4_PROGRAM_NAMES} phase4_demo)
install(DIRECTORY slurm DESTINATION ${P4_SHARE_DIR} FILES_MATCHING PATTERN "*.sbatch")
install(FILES jobs/hyperqueue.md jobs/hyperqueue_tasks.py DESTINATION ${P4_SHARE_DIR}/jobs)
install(DIRECTORY jobs/cfg DESTINATION ${P4_SHARE_DIR} FILES_MATCHING PATTERN "*.json")
install(DIRECTORY jobs/demo/model DESTINATION ${P4_SHARE_DIR}/demo)
install(FILES jobs/demo/quickstart.json DESTINATION ${P4_SHARE_DIR}/demo)
install(PROGRAMS jobs/demo/demo.sh DESTINATION ${P4_SHARE_DIR}/demo)
install(FILES README.md DESTINATION ${P4_SHARE_DIR})
install(DIRECTORY docs DESTINATION ${P4_SHARE_DIR} FILES_MATCHING PATTERN "*.md")
install(DIRECTORY docs/ DESTINATION ${CMAKE_INSTALL_MANDIR}/man1 FILES_MATCHING PATTERN "*.1")
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/phase4)
