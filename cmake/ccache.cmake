# Compile through ccache where it is installed and works (it needs a cache folder that it may write), unless the caller
# names a launcher of his own.
find_program(P4_CCACHE ccache)
mark_as_advanced(P4_CCACHE)
if(P4_CCACHE AND NOT DEFINED P4_CCACHE_WORKS)
  file(WRITE ${CMAKE_BINARY_DIR}/CMakeFiles/ccache_try.c "int p4_ccache_try;\n")
  execute_process(COMMAND ${P4_CCACHE} ${CMAKE_C_COMPILER} -c ccache_try.c -o ccache_try.o OUTPUT_QUIET ERROR_QUIET
                  WORKING_DIRECTORY ${CMAKE_BINARY_DIR}/CMakeFiles RESULT_VARIABLE status)
  if(status EQUAL 0)
    set(P4_CCACHE_WORKS ON CACHE INTERNAL "ccache can write its cache")
  else()
    set(P4_CCACHE_WORKS OFF CACHE INTERNAL "ccache can write its cache")
  endif()
endif()
foreach(language C CUDA)
  if(P4_CCACHE_WORKS AND NOT DEFINED CMAKE_${language}_COMPILER_LAUNCHER)
    set(CMAKE_${language}_COMPILER_LAUNCHER ${P4_CCACHE})
  endif()
endforeach()
