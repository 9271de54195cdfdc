# libtorch from the PyPI wheel, as imported targets of our own: the wheel's CMake package demands a CUDA
# toolkit, we need none. TORCH_DIR is the folder of the python package `torch` (it holds include/ and lib/).
if(NOT TORCH_DIR)
  if(DEFINED ENV{TORCH_DIR} AND NOT "$ENV{TORCH_DIR}" STREQUAL "")
    set(TORCH_DIR "$ENV{TORCH_DIR}")
  else()
    set(TORCH_DIR "${CMAKE_SOURCE_DIR}/.deps/torch")
  endif()
endif()
get_filename_component(TORCH_DIR "${TORCH_DIR}" REALPATH)
if(NOT EXISTS "${TORCH_DIR}/lib/libtorch_cpu.so")
  message(FATAL_ERROR
    "libtorch was not found in ${TORCH_DIR}. Run tools/setup.sh (or `make build`), "
    "or set TORCH_DIR to the folder of an installed torch 2.11 package.")
endif()

file(MAKE_DIRECTORY "${CMAKE_BINARY_DIR}/torch_include")
foreach(name c10 torch_cpu)
  add_library(torch::${name} SHARED IMPORTED GLOBAL)
  set_target_properties(torch::${name} PROPERTIES IMPORTED_LOCATION "${TORCH_DIR}/lib/lib${name}.so")
endforeach()
add_library(torch::torch INTERFACE IMPORTED GLOBAL)
# Only torch's own headers: the wheel also carries a fmt that must not shadow the system's.
foreach(folder ATen c10 torch)
  file(CREATE_LINK "${TORCH_DIR}/include/${folder}" "${CMAKE_BINARY_DIR}/torch_include/${folder}" SYMBOLIC)
endforeach()
target_include_directories(torch::torch SYSTEM INTERFACE "${CMAKE_BINARY_DIR}/torch_include")
# The wheel's own dependencies (CUDA runtime, CUPTI) lie in sibling folders that its RUNPATH names; the
# linker must not insist on resolving them itself.
target_link_options(torch::torch INTERFACE -Wl,--unresolved-symbols=ignore-in-shared-libs)
target_link_libraries(torch::torch INTERFACE torch::torch_cpu torch::c10)
set(CMAKE_BUILD_RPATH "${TORCH_DIR}/lib")
