# The fuzzers of preset fuzz: each runs over its kept corpus, then P4_FUZZ_SECONDS on inputs of its own making.
add_custom_target(fuzzers)
file(GLOB P4_FUZZERS CONFIGURE_DEPENDS fuzz/fuzz_*.c)
foreach(source ${P4_FUZZERS})
  get_filename_component(name ${source} NAME_WE)
  string(REPLACE "fuzz_" "" subject ${name})
  add_executable(${name} ${source})
  target_link_libraries(${name} PRIVATE p4_flags p4_jobs)
  target_link_options(${name} PRIVATE -fsanitize=fuzzer)
  add_dependencies(fuzzers ${name})
  add_test(NAME ${name} COMMAND bash ${CMAKE_CURRENT_SOURCE_DIR}/fuzz/run_fuzzer.sh $<TARGET_FILE:${name}>
           ${CMAKE_CURRENT_SOURCE_DIR}/fuzz/corpus/${subject} ${P4_FUZZ_SECONDS})
  set_tests_properties(${name} PROPERTIES LABELS fuzz TIMEOUT ${P4_HANG_S} SKIP_RETURN_CODE ${P4_SKIPPED})
endforeach()
