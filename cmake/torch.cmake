# libtorch from the PyPI wheel, as imported targets of our own: the wheel's CMake package demands a CUDA
# toolkit, we need none. TORCH_DIR is the folder of the python package `torch` (it holds include/ and lib/).
if(NOT TORCH_DIR)
  if(DEFINED ENV{TORCH_DIR} AND NOT "$ENV{TORCH_DIR}" STREQUAL "")
    set(TORCH_DIR "$ENV{TORCH_DIR}")
  else()
    set(TORCH_DIR "${CMAKE_SOURCE_DIR}/.deps/torch")
  endif()
endif()
get_filename_component(torch_link "${TORCH_DIR}" ABSOLUTE BASE_DIR "${CMAKE_SOURCE_DIR}")
get_filename_component(TORCH_DIR "${torch_link}" REALPATH)
if(NOT EXISTS "${TORCH_DIR}/lib/libtorch_cpu.so")
  message(FATAL_ERROR
    "libtorch was not found in ${TORCH_DIR}. Run tools/setup.sh (or `make build`), "
    "or set TORCH_DIR to the folder of an installed torch 2.11 package.")
endif()

# Programs find libtorch through a link in the build folder, relative to where they lie themselves
# ($ORIGIN/../torch/lib). The link is relative too where torch is the checkout's own, so that a checkout may be moved.
cmake_path(IS_PREFIX CMAKE_SOURCE_DIR "${torch_link}" NORMALIZE torch_is_ours)
if(torch_is_ours)
  file(RELATIVE_PATH torch_link "${CMAKE_BINARY_DIR}" "${torch_link}")
endif()
file(CREATE_LINK "${torch_link}" "${CMAKE_BINARY_DIR}/torch" SYMBOLIC)
set(CMAKE_BUILD_RPATH_USE_ORIGIN ON)
foreach(name c10 torch_cpu)
  add_library(torch::${name} SHARED IMPORTED GLOBAL)
  set_target_properties(torch::${name} PROPERTIES IMPORTED_LOCATION "${CMAKE_BINARY_DIR}/torch/lib/lib${name}.so")
endforeach()
add_library(torch::torch INTERFACE IMPORTED GLOBAL)
# Only torch's own headers: the wheel also carries a fmt that must not shadow the system's.
file(MAKE_DIRECTORY "${CMAKE_BINARY_DIR}/torch_include")
foreach(folder ATen c10 torch)
  file(CREATE_LINK "${TORCH_DIR}/include/${folder}" "${CMAKE_BINARY_DIR}/torch_include/${folder}" SYMBOLIC)
endforeach()
target_include_directories(torch::torch SYSTEM INTERFACE "${CMAKE_BINARY_DIR}/torch_include")
# The wheel's own dependencies (CUDA runtime, CUPTI) lie in sibling folders that its RUNPATH names; the
# linker must not insist on resolving them itself.
target_link_options(torch::torch INTERFACE -Wl,--unresolved-symbols=ignore-in-shared-libs)
target_link_libraries(torch::torch INTERFACE torch::torch_cpu torch::c10)
