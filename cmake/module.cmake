# distorch_module(<folder> USES <folders and libraries>... [EXCEPT <files>...] [CALM])
#
# CALM: no loop of the folder's own takes time, so that it is compiled with little optimising (a third quicker).
# Builds every .cpp of distorch/<folder>/ into the library distorch_<folder> and every
# tests/<folder>/*_test.cpp into <folder>_test, which ctest runs. Names of folders in USES are linked as
# distorch_<name>, anything else is a library target (torch::torch, PNG::PNG, ...).
# A folder that reaches torch compiles with the shared precompiled header.

set(DISTORCH_WARNINGS -Wall -Wextra -Wno-unused-parameter -Wno-missing-field-initializers)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # gcc takes files that are compiled together (below) for headers, and warns of what their classes keep to themselves.
  list(APPEND DISTORCH_WARNINGS -Wno-subobject-linkage)
endif()
if(DISTORCH_SANITIZE)
  # vptr: libtorch's classes have no type information that it could look at.
  add_compile_options(-fsanitize=${DISTORCH_SANITIZE} -fno-omit-frame-pointer -fno-sanitize=vptr)
  add_link_options(-fsanitize=${DISTORCH_SANITIZE})
endif()
if(DISTORCH_FUZZ)
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()

# What is compiled with little optimising: tests, benchmarks and folders without loops of their own.
set(DISTORCH_CALM $<$<CONFIG:Release>:-O1>)

# doctest's main, once for all tests. Only here: a path among the tests' own options would keep them out of a compiler cache.
add_library(distorch_test_main OBJECT ${CMAKE_SOURCE_DIR}/tests/main.cpp)
target_include_directories(distorch_test_main PRIVATE ${CMAKE_SOURCE_DIR})
target_compile_definitions(distorch_test_main PRIVATE DISTORCH_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
target_compile_options(distorch_test_main PRIVATE ${DISTORCH_CALM})

# The one precompiled header: everything of ATen and the parts of the standard library used everywhere.
add_library(distorch_pch OBJECT ${CMAKE_SOURCE_DIR}/cmake/pch.cpp)
target_link_libraries(distorch_pch PRIVATE torch::torch)
target_compile_options(distorch_pch PRIVATE ${DISTORCH_WARNINGS} -fpch-preprocess)
target_precompile_headers(distorch_pch PRIVATE ${CMAKE_SOURCE_DIR}/cmake/pch.h)

function(distorch_use_pch target)
  target_compile_options(${target} PRIVATE -fpch-preprocess)
  target_precompile_headers(${target} REUSE_FROM distorch_pch)
endfunction()

# Files of a target that are compiled as one (cmake/unity.py says why and which); `max_lines` bounds what one change compiles again.
# Which go together is asked for again whenever one of them has changed.
option(DISTORCH_UNITY "Compile files of a folder together: a third of the time for all, more for one" ON)
find_package(Python3 REQUIRED COMPONENTS Interpreter)
function(distorch_compile_together target max_lines)
  if(NOT DISTORCH_UNITY)
    return()
  endif()
  execute_process(COMMAND ${Python3_EXECUTABLE} ${CMAKE_SOURCE_DIR}/cmake/unity.py ${max_lines} ${ARGN}
    OUTPUT_VARIABLE pairs OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
  string(REGEX MATCHALL "[^\n]+" pairs "${pairs}")
  foreach(pair IN LISTS pairs)
    string(REGEX MATCH "^([^ ]+) (.+)$" pair "${pair}")
    set_source_files_properties("${CMAKE_MATCH_2}" PROPERTIES UNITY_GROUP ${CMAKE_MATCH_1})
  endforeach()
  set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_MODE GROUP)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${ARGN} ${CMAKE_SOURCE_DIR}/cmake/unity.py)
endfunction()

function(distorch_module folder)
  cmake_parse_arguments(ARG "CALM" "" "USES;EXCEPT" ${ARGN})
  set(library distorch_${folder})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/distorch/${folder}/*.cpp)
  foreach(name ${ARG_EXCEPT})
    list(REMOVE_ITEM sources ${CMAKE_SOURCE_DIR}/distorch/${folder}/${name})
  endforeach()
  add_library(${library} STATIC ${sources})
  distorch_compile_together(${library} 1500 ${sources})
  target_include_directories(${library} PUBLIC ${CMAKE_SOURCE_DIR})
  target_compile_options(${library} PRIVATE ${DISTORCH_WARNINGS})
  if(ARG_CALM)
    target_compile_options(${library} PRIVATE ${DISTORCH_CALM})
  endif()
  set(torch_user FALSE)
  foreach(used ${ARG_USES})
    if(EXISTS ${CMAKE_SOURCE_DIR}/distorch/${used})
      target_link_libraries(${library} PUBLIC distorch_${used})
      get_property(reaches GLOBAL PROPERTY distorch_torch_${used})
    else()
      target_link_libraries(${library} PUBLIC ${used})
      string(COMPARE EQUAL "${used}" "torch::torch" reaches)
    endif()
    if(reaches)
      set(torch_user TRUE)
    endif()
  endforeach()
  set_property(GLOBAL PROPERTY distorch_torch_${folder} ${torch_user})
  if(torch_user)
    distorch_use_pch(${library})
  endif()
  distorch_test(${folder} ${library} ${torch_user})
endfunction()

# Tests of one folder: one executable with doctest's main, found by ctest under the folder's name.
function(distorch_test folder library torch_user)
  file(GLOB tests CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/${folder}/*_test.cpp)
  if(NOT tests)
    return()
  endif()
  add_executable(${folder}_test ${tests} $<TARGET_OBJECTS:distorch_test_main>)
  distorch_compile_together(${folder}_test 1000 ${tests})
  target_link_libraries(${folder}_test PRIVATE ${library})
  target_compile_options(${folder}_test PRIVATE ${DISTORCH_WARNINGS} ${DISTORCH_CALM})
  if(torch_user)
    distorch_use_pch(${folder}_test)
  endif()
  set(names ${folder})
  set(all_but)
  # Cases "any device: ..." take their device from DISTORCH_TEST_DEVICE and are a test of their own:
  # `DISTORCH_TEST_DEVICE=cuda:0 ctest -L gpu` runs them, and nothing else, on a GPU.
  if(folder MATCHES "^(device|quant|streaming|nodes)$")
    set(cases "any device: *")
    set(all_but "--test-case-exclude=${cases}")
    list(APPEND names ${folder}_any_device)
    add_test(NAME ${folder}_any_device COMMAND ${folder}_test "--test-case=${cases}"
      WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
    set_tests_properties(${folder}_any_device PROPERTIES
      LABELS gpu FAIL_REGULAR_EXPRESSION "test cases: +0 ")
  endif()
  add_test(NAME ${folder} COMMAND ${folder}_test ${all_but} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  # Threads that wait for work sleep: spinning multiplies the time on a busy machine.
  set_tests_properties(${names} PROPERTIES ENVIRONMENT OMP_WAIT_POLICY=passive)
endfunction()
