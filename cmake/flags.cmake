# p4_flags: what every file of the project is compiled with. Sanitizers and the fuzzer's instrumentation hold for the
# whole build, so that libraries and tests agree.
add_library(p4_flags INTERFACE)
target_compile_definitions(p4_flags INTERFACE _POSIX_C_SOURCE=200809L _DEFAULT_SOURCE P4_BUILDING
                           P4_VERSION="${PROJECT_VERSION}")
target_compile_options(p4_flags INTERFACE
                       $<$<COMPILE_LANGUAGE:C>:-Wall -Wextra -Wconversion -Wshadow -Wstrict-prototypes>)
if(P4_WERROR)
  target_compile_options(p4_flags INTERFACE $<$<COMPILE_LANGUAGE:C>:-Werror>)
endif()
if(P4_SANITIZE OR P4_FUZZ)
  add_compile_options(-fsanitize=address,undefined -fno-omit-frame-pointer -fno-sanitize-recover=undefined)
  add_link_options(-fsanitize=address,undefined)
endif()
if(P4_FUZZ)
  if(NOT CMAKE_C_COMPILER_ID STREQUAL "Clang")
    message(FATAL_ERROR "P4_FUZZ needs clang (libFuzzer): cmake --preset fuzz, or -DCMAKE_C_COMPILER=clang")
  endif()
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()
